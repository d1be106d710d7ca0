//! `run`: launch, wait, show.

use super::args::{Run, user_data_file};
use super::describe;
use super::instance::{finish, shortfall, wait_for};
use super::output::{Format, emit, write_stdout};
use super::progress::Progress;
use super::ui::Ui;
use crate::action::{RunInstances, Until};
use crate::error::{Code, Error, OrFail, OrRefuse, Result};
use crate::instance::dir::InstanceDir;
use crate::instance::{console, launch};
use crate::record::image::BlockDeviceMapping;
use crate::record::instance::{Record, State};
use crate::record::limits::CgroupLimits;
use crate::record::tag::Tag;
use crate::service::{self, Waited};
use crate::store::Store;
use std::io::Read;
use std::process::ExitCode;

/// EC2's limit of user data, in bytes.
const MAX_USER_DATA: u64 = 16 << 10;
/// Lines of each console that `--wait` prints.
const LAST_LINES: usize = 20;

/// `run`.
pub fn run(store: &Store, ui: &Ui, args: &Run) -> Result<ExitCode> {
    let action = action(args)?;
    // Who is interrupted from here on still hears what has been launched.
    let launch = || Progress::during("launching", || service::run(store, &action));
    let Some(launched) = ui.cancellable(launch)? else { return Ok(ui.cancelled()) };
    let image = &launched.image;
    let provided = store.administrator().is_none_or(|uid| uid.to_string() == image.owner_id);
    if !provided && image.owner_id != store.owner_id() {
        eprintln!(
            "spore: note: image {} is account {}'s: nobody vouches for what is in it",
            image.image_id, image.owner_id
        );
    }
    let mut records = launched.records;
    if let Some(first) = launched.failures.first() {
        // Not an error: at least as many came up as had to (RunInstances' MinCount).
        let (up, all) = (records.len(), records.len() + launched.failures.len());
        eprintln!("spore: warning: {up} of {all} instances came up; the next: {}", first.message());
    }
    let mut errors = Vec::new();
    if args.wait {
        let waited = wait(store, &records, args);
        records = refreshed(records, &waited);
        if ui.context.cancelled() {
            emit(ui.output, &describe::list(&records))?;
            eprintln!("spore: interrupted{}", going_on(&records));
            return Ok(ui.cancelled());
        }
        if !ui.output.quiet && ui.output.format == Format::Table {
            write_stdout(consoles(store, &records)?.as_bytes())?;
        }
        errors.extend(waited.iter().filter_map(|w| shortfall(w, Until::LoginOrEnd, args.timeout)));
        errors.extend(records.iter().filter_map(failed));
    }
    emit(ui.output, &describe::list(&records))?;
    finish(errors)
}

fn action(args: &Run) -> Result<RunInstances> {
    let mut tags = args.tags.clone();
    if let Some(name) = &args.name {
        if tags.iter().any(|tag| tag.key == "Name") {
            return Err(Error::usage("--name and --tag Name=… say the same; give one of them"));
        }
        tags.push(Tag { key: "Name".into(), value: name.clone() });
    }
    crate::record::tag::check_tags(&tags)?;
    Ok(RunInstances {
        image: args.image.clone(),
        kernel: args.kernel.clone(),
        ramdisk: args.initrd.clone(),
        request: launch::Request {
            min_count: args.count.min,
            max_count: args.count.max,
            instance_type: args.instance_type.clone(),
            cpus: args.cpus,
            memory: args.memory,
            kernel: None,
            ramdisk: None,
            firmware: args.firmware.clone(),
            command_line: args.cmdline.clone(),
            append: args.append.clone(),
            boot_entry: args.boot_entry.clone(),
            root_device_type: args.root_device_type(),
            terminate_on_shutdown: args.rm,
            block_device_mappings: mappings(args.block_device_mappings.as_deref())?,
            engine: args.engine.into(),
            disk_limits: args.limit.unwrap_or_default(),
            transport: args.transport.map(Into::into),
            no_overcommit: args.no_overcommit,
            cgroup_limits: CgroupLimits { cpu_quota: args.cpu_quota, memory_max: args.memory_max },
            tags,
        },
        user_data: args.user_data.as_deref().map(user_data).transpose()?,
        wait_running: !args.no_wait,
    })
}

/// EC2's BlockDeviceMappings: JSON, or a file of it.
fn mappings(text: Option<&str>) -> Result<Vec<BlockDeviceMapping>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let text = match user_data_file(text) {
        Some(path) => {
            std::fs::read_to_string(&path).or_refuse(|| format!("read {}", path.display()))?
        }
        None => text.to_owned(),
    };
    serde_json::from_str(&text).map_err(|e| {
        Error::refused(Code::InvalidBlockDeviceMapping, format!("the mapping is malformed: {e}"))
    })
}

/// The bytes that `--user-data` means.
///
/// # Errors
/// They can't be read, or are more than EC2 takes.
pub fn user_data(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match (text, user_data_file(text)) {
        ("-", _) => {
            let limited = std::io::stdin().lock().take(MAX_USER_DATA + 1);
            read(limited, &mut bytes).or_fail(|| "read user data from standard input")?;
        }
        (_, Some(path)) => {
            let file =
                std::fs::File::open(&path).or_refuse(|| format!("open {}", path.display()))?;
            read(file.take(MAX_USER_DATA + 1), &mut bytes)
                .or_refuse(|| format!("read {}", path.display()))?;
        }
        _ => bytes.extend_from_slice(text.as_bytes()),
    }
    if bytes.len() as u64 > MAX_USER_DATA {
        return Err(Error::refused(
            Code::InvalidUserDataMalformed,
            format!("user data may have {MAX_USER_DATA} bytes at most"),
        ));
    }
    eprintln!("spore: note: user data is kept with the instance; no guest can read it yet");
    Ok(bytes)
}

fn read(mut from: impl Read, to: &mut Vec<u8>) -> std::io::Result<usize> {
    from.read_to_end(to)
}

/// What becomes of those that nobody waits for any more.
fn going_on(records: &[Record]) -> String {
    let active = records.iter().filter(|record| record.instance.state.is_active());
    let ids: Vec<&str> = active.map(|record| record.instance.instance_id.as_str()).collect();
    match ids.is_empty() {
        true => String::new(),
        false => format!("; they go on, and 'spore terminate {}' ends them", ids.join(" ")),
    }
}

fn wait(store: &Store, records: &[Record], args: &Run) -> Vec<Waited> {
    let dirs: Vec<_> =
        records.iter().map(|r| InstanceDir::new(store, &r.instance.instance_id)).collect();
    wait_for(&dirs, Until::LoginOrEnd, args.timeout)
}

/// The records as the wait left them.
fn refreshed(records: Vec<Record>, waited: &[Waited]) -> Vec<Record> {
    let newer = |(old, waited): (Record, &Waited)| match waited {
        Waited::Reached(record) | Waited::Impossible(record) | Waited::TimedOut(record) => {
            record.clone()
        }
        Waited::Lost(_) => old,
    };
    records.into_iter().zip(waited).map(newer).collect()
}

/// The error for a guest that ended otherwise than by its own will.
fn failed(record: &Record) -> Option<Error> {
    let instance = &record.instance;
    let reason = instance.state_reason.as_ref()?;
    let ended = matches!(instance.state, State::Stopped | State::Terminated);
    let bad = ended && reason.code.ends_with(".InternalError");
    bad.then(|| {
        let (id, state) = (&instance.instance_id, instance.state.name());
        Error::refused(Code::IncorrectInstanceState, format!("{id} is {state}: {}", reason.message))
    })
}

/// The end of each console under a heading.
fn consoles(store: &Store, records: &[Record]) -> Result<String> {
    let mut text = String::new();
    for record in records {
        let instance = &record.instance;
        let dir = InstanceDir::new(store, &instance.instance_id);
        let (id, index) = (&instance.instance_id, instance.ami_launch_index);
        text.push_str(&format!("-- {id}, index {index}, {}\n", instance.state.name()));
        for line in console::last_lines(&dir, instance.spore.console_start, LAST_LINES)? {
            text.push_str(&format!("{line}\n"));
        }
        text.push('\n');
    }
    Ok(text)
}

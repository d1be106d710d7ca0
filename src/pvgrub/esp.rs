//! EFI system partitions without EFI: what firmware would start there, and what systemd-boot would
//! offer. (UEFI 2.10, 3.5.1.1 and 13.3; UAPI.1)

use super::menu::{Entry, MAX_ENTRIES, Menu, Place};
use super::systemd_boot::{self, CONFIGURED, Item, UNIFIED};
use super::uki::Program;
use super::volume::{FileSystem, Missing, Volume};

/// What firmware starts on a disk that it does not know yet.
const REMOVABLE: &str = "/EFI/BOOT/BOOTX64.EFI";
/// Where entries of both types are.
const CONFIGURATIONS: &str = "/loader/entries";
const IMAGES: &str = "/EFI/Linux";
const CONFIGURATION: &str = "/loader/loader.conf";
/// Longest entry, configuration or text of an image.
const MAX_TEXT: u64 = 64 << 10;

/// What an EFI system partition boots.
pub struct Offer {
    /// Its entries.
    pub menu: Menu,
    /// Where they are.
    pub path: &'static str,
    /// It is what firmware would start, or systemd-boot's, which it would start: whatever menus of
    /// others there are, they are not for this machine.
    pub started: bool,
}

/// What the EFI system partition at `at` boots, with what belongs to it on others.
pub fn offer(volume: &Volume, at: usize) -> Option<Offer> {
    let system = volume.systems.get(at).filter(|system| system.is_efi_system())?;
    let program = Program::open(system, REMOVABLE).ok();
    let kernel = program.as_ref().filter(|found| found.is_unified() || found.is_kernel());
    if let Some(program) = kernel {
        let entry = Entry {
            index: "0".into(),
            title: title(system, program).unwrap_or_else(|| REMOVABLE.into()),
            kernel: Some(REMOVABLE.into()),
            unified: program.is_unified().then_some(0),
            ..Entry::default()
        };
        let menu = Menu { entries: vec![entry], ..Menu::default() };
        return Some(Offer { menu, path: REMOVABLE, started: true });
    }
    let mut items = Vec::new();
    add(system, &Place::Menu, &mut items);
    let more = |system: &&FileSystem| system.is_extended_boot_loader() && system.is_readable();
    if let Some(more) = volume.systems.iter().find(more)
        && let Some(number) = more.partition
    {
        add(more, &Place::Partition(number), &mut items);
    }
    if items.is_empty() {
        return None;
    }
    let configured = items.iter().any(Item::is_configured);
    let configuration = system.read_text(CONFIGURATION, MAX_TEXT).unwrap_or_default();
    Some(Offer {
        menu: systemd_boot::menu(items, &configuration),
        path: if configured { CONFIGURATIONS } else { IMAGES },
        started: program.is_some_and(|program| program.is_systemd_boot()),
    })
}

/// What the image that firmware starts is called.
fn title(system: &FileSystem, program: &Program) -> Option<String> {
    let release = program.text((system, REMOVABLE), (0, ".osrel"), MAX_TEXT).ok()?;
    let name = (REMOVABLE, REMOVABLE.to_owned());
    systemd_boot::unified(name, (0, ""), &release, &Place::Menu).map(|item| item.entry.title)
}

/// Add the entries that a file system has. One that can't be read is none, as to systemd-boot.
fn add(system: &FileSystem, place: &Place, items: &mut Vec<Item>) {
    let names = |directory, suffix| {
        let names = system.names(directory).into_iter();
        names.filter(move |name| systemd_boot::is_entry(name, suffix)).take(MAX_ENTRIES)
    };
    for name in names(CONFIGURATIONS, CONFIGURED) {
        let text = system.read_text(&format!("{CONFIGURATIONS}/{name}"), MAX_TEXT);
        let item = text.ok().and_then(|text| systemd_boot::configured(&name, &text, place));
        items.extend(item.filter(|item| is_there(system, item)).map(|mut item| {
            look(system, &mut item.entry);
            item
        }));
    }
    for name in names(IMAGES, UNIFIED) {
        let path = format!("{IMAGES}/{name}");
        let Ok(program) = Program::open(system, &path) else { continue };
        let text = |what| program.text((system, &path), what, MAX_TEXT).unwrap_or_default();
        for profile in 0..program.profiles() {
            let (release, own) = (text((profile, ".osrel")), text((profile, ".profile")));
            let item =
                systemd_boot::unified((&name, path.clone()), (profile, &own), &release, place);
            items.extend(item.map(|mut item| {
                look(system, &mut item.entry);
                item
            }));
        }
        if items.len() >= MAX_ENTRIES {
            break;
        }
    }
}

/// Its kernel is there: systemd-boot shows no other.
fn is_there(system: &FileSystem, item: &Item) -> bool {
    item.entry.kernel.as_deref().is_some_and(|path| system.stat(path).is_some())
}

/// An EFI program that is to be started is booted if it is a kernel or has one in it.
fn look(system: &FileSystem, entry: &mut Entry) {
    let (Some(path), Some(_)) = (&entry.kernel, entry.unified) else { return };
    match Program::open(system, path) {
        Ok(program) if program.is_unified() => {}
        Ok(program) if program.is_kernel() => {
            entry.unified = None;
            systemd_boot::take_initrds(entry);
        }
        Ok(_) => entry.other = Some("it is an EFI program, and has no kernel in it".into()),
        Err(Missing::Absent) => entry.other = Some("its program is not there".into()),
        Err(Missing::Unreadable(why)) => entry.other = Some(why),
    }
}

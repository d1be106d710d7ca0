//! RunInstances, and ModifyInstanceAttribute, which takes the same things.

use super::disks;
pub use super::launch_request::{MAX_USER_DATA, Request, RunInstances, check_user_data};
use super::pull::await_image;
use super::{Service, idempotent, instances};
use crate::error::{Code, Error, OrFail, Result};
use crate::id::InstanceId;
use crate::image::{attribute, builtin, catalog, product};
use crate::inspect::boot_method;
use crate::instance::dir;
use crate::instance::host;
use crate::instance::ids::RandomIds;
use crate::instance::launch::{Host, LaunchKey, LaunchPlan};
use crate::instance::lifecycle;
use crate::instance::modify::{self, Changes};
pub use crate::instance::types::{InstanceType, TYPES};
use crate::instance::{cdroms, shares, uefi};
use crate::kernel::{BootFiles, find};
use crate::plan::{CpuModel, PvGrub};
use crate::record::image::{BootMode, Image};
use crate::record::instance::InstanceRecord;
use crate::record::metadata::MetadataOptionsRequest;
use crate::record::network::Network;
use crate::record::restart::RestartPolicy;
use crate::record::tag::{Tag, check_tags};
use crate::store::Store;
use crate::sys::kvm;
use crate::transfer::bundle;
use crate::{instance, kernel, key};
use std::path::{Path, PathBuf};

/// EC2 ModifyInstanceAttribute of a stopped instance; its name and its metadata options are changed
/// while it runs, too. What is `None` or empty stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModifyInstanceAttribute {
    /// The instance.
    pub instance_id: String,
    /// Preset name.
    pub instance_type: Option<String>,
    /// vCPUs, over the type's.
    pub cpus: Option<u8>,
    /// Bytes of RAM, over the type's.
    pub memory: Option<u64>,
    /// Which instructions its guest finds.
    pub cpu_model: Option<CpuModel>,
    /// Whether its guest may run virtual machines of its own. (EC2 ModifyInstanceCpuOptions)
    pub nested_virtualization: Option<bool>,
    /// The tag Name.
    pub name: Option<String>,
    /// When it is started again, which of one that runs may be changed, too.
    pub restart: Option<RestartPolicy>,
    /// A kernel, a file to register as one, or `none`: firmware boots the root device.
    pub kernel: Option<String>,
    /// A ramdisk, a file to register as one, or `none`.
    pub ramdisk: Option<String>,
    /// Firmware that boots the root device.
    pub firmware: Option<PathBuf>,
    /// The discs in its CD-ROM drives from now on.
    pub cdroms: Option<Vec<PathBuf>>,
    /// Kept with the instance; empty for none.
    pub user_data: Option<Vec<u8>>,
    /// What its network interfaces hang on from now on, and the pairs of queues of each.
    pub networks: Option<(Vec<Network>, u8)>,
    /// How its guest gets at its metadata. (EC2 ModifyInstanceMetadataOptions)
    pub metadata_options: MetadataOptionsRequest,
    /// Whether it gets it as a volume labelled CIDATA.
    pub no_cloud: Option<bool>,
    /// Device names, and whether their volumes go with the instance.
    pub delete_on_termination: Vec<(String, bool)>,
}

impl ModifyInstanceAttribute {
    /// Whether it changes nothing that a machine has: its name, when it is started
    /// again, and how its guest is answered.
    fn is_live(&self) -> bool {
        let rest = Self {
            instance_id: String::new(),
            name: None,
            restart: None,
            metadata_options: MetadataOptionsRequest::default(),
            ..self.clone()
        };
        rest == Self::default()
    }
}

/// What a launch came to.
#[derive(Debug)]
pub struct Launched {
    /// What they were launched from.
    pub image: Image,
    /// It is another account's, and not the administrator's of a shared store: nobody vouches for
    /// what is in it.
    pub unvouched: bool,
    /// Those that are up, by launch index.
    pub records: Vec<InstanceRecord>,
    /// Why others are not.
    pub failures: Vec<Error>,
}

impl Service {
    /// EC2 RunInstances.
    ///
    /// # Errors
    /// The image is unknown, the request can't be met, fewer than the minimum came up; nothing is
    /// left then.
    pub fn run_instances(&self, request: &RunInstances) -> Result<Launched> {
        let store = &self.store;
        let request = &self.whole(request)?;
        check_tags(&request.request.tags)?;
        check_tags(&request.volume_tags)?;
        check_user_data(request.user_data.as_deref().unwrap_or_default())?;
        // Held until the record says it: of two such requests at once one launches.
        let _turn = match &request.request.client_token {
            Some(token) => {
                let turn = idempotent::turn(store, token)?;
                let records = idempotent::launched(store, token)?;
                if let Some(first) = records.first() {
                    let image = store.images().get(&first.instance.image_id)?;
                    return Ok(Launched { image, unvouched: false, records, failures: Vec::new() });
                }
                Some(turn)
            }
            None => None,
        };
        let image = match request.wait_image {
            true => await_image(store, &request.image_id)?,
            false => catalog::resolve(store, &request.image_id)?,
        };
        bundle::intact::check(store, &image)?;
        let mut boot = BootFiles::default();
        let launched = launch(store, request, image, &mut boot)?;
        boot.keep();
        launched.records.iter().for_each(|record| self.have_held(record));
        self.tag_volumes(&launched.records, &request.volume_tags)?;
        Ok(launched)
    }

    /// The request with what it leaves open: its template's, then what is usual.
    fn whole(&self, request: &RunInstances) -> Result<RunInstances> {
        let mut whole = match &request.launch_template {
            None => request.clone(),
            Some(specification) => {
                let (template, version) = self.launch_template_version(specification)?;
                let data = &version.launch_template_data;
                let usual = request.default_network.as_ref();
                let mut whole = request.over(self.launch_request(data, usual)?);
                let tags = [
                    ("aws:ec2launchtemplate:id", template.launch_template_id.to_string()),
                    ("aws:ec2launchtemplate:version", version.version_number.to_string()),
                ];
                let tags = tags.map(|(key, value)| Tag { key: key.into(), value });
                whole.system_tags.extend(tags);
                whole
            }
        };
        if whole.image_id.is_empty() && !whole.request.cdroms.is_empty() {
            // What is on a disc is installed on an empty disk, or boots without one.
            whole.image_id = builtin::BLANK_ID.to_owned();
        }
        if whole.image_id.is_empty() {
            let why = "neither the request nor a launch template names an image";
            return Err(Error::refused(Code::MissingParameter, why));
        }
        let asked = &mut whole.request;
        asked.terminate_on_shutdown =
            whole.terminate_on_shutdown.unwrap_or(asked.terminate_on_shutdown);
        if asked.networks.is_empty() {
            asked.networks.extend(whole.default_network.clone().map(Network::Named));
        }
        Ok(whole)
    }

    fn tag_volumes(&self, records: &[InstanceRecord], tags: &[Tag]) -> Result<()> {
        let mappings = records.iter().flat_map(|record| &record.instance.block_device_mappings);
        let volumes: Vec<String> =
            mappings.map(|mapping| mapping.ebs.volume_id.to_string()).collect();
        match tags.is_empty() {
            true => Ok(()),
            false => self.create_tags(&volumes, tags)?.into_iter().collect(),
        }
    }

    /// EC2 ModifyInstanceAttribute.
    ///
    /// # Errors
    /// As [`modify::modify`]'s; the instance, a kernel or a ramdisk is unknown.
    pub fn modify_instance_attribute(
        &self,
        request: &ModifyInstanceAttribute,
    ) -> Result<InstanceRecord> {
        let store = &self.store;
        check_user_data(request.user_data.as_deref().unwrap_or_default())?;
        let dir = instances::find(store, &request.instance_id)?;
        if request.is_live() {
            if let Some(name) = &request.name {
                let tag = Tag { key: "Name".into(), value: name.clone() };
                let tagged = self.create_tags(&[dir.id().to_string()], &[tag])?;
                tagged.into_iter().collect::<Result<()>>()?;
            }
            let mut record = instances::record(&dir)?;
            if request.metadata_options != MetadataOptionsRequest::default() {
                record = modify::metadata_options(&dir, request.metadata_options)?;
            }
            if let Some(policy) = request.restart {
                record = self.modify_restart_policy(dir.id().as_str(), policy)?;
            }
            return Ok(record);
        }
        // Held until the instance's record says it.
        let mut boot = BootFiles::default();
        let ramdisk = match request.ramdisk.as_deref() {
            Some("none") => Some(None),
            Some(text) => {
                boot.ramdisk = Some(find::ramdisk(store, text)?);
                Some(boot.ramdisk_id())
            }
            None => None,
        };
        let kernel = match request.kernel.as_deref() {
            Some("none") => Some(None),
            Some(text) => {
                boot.kernel = Some(find::kernel(store, text)?);
                Some(boot.kernel_id())
            }
            None => None,
        };
        let changes = Changes {
            instance_type: request.instance_type.clone(),
            cpus: request.cpus,
            memory: request.memory,
            cpu_model: request.cpu_model,
            nested_virtualization: request.nested_virtualization,
            name: request.name.clone(),
            kernel,
            firmware: request.firmware.as_deref().map(firmware).transpose()?,
            ramdisk,
            cdroms: request.cdroms.clone(),
            user_data: request.user_data.clone(),
            networks: request.networks.clone(),
            metadata_options: request.metadata_options,
            no_cloud: request.no_cloud,
            delete_on_termination: request.delete_on_termination.clone(),
        };
        let record = modify::modify(store, &dir, &changes, memory()?)?;
        match request.restart {
            Some(policy) => self.modify_restart_policy(dir.id().as_str(), policy),
            None => Ok(record),
        }
    }

    /// EC2 ResetInstanceAttribute of the kernel: what the image says of it again.
    ///
    /// # Errors
    /// As [`Service::modify_instance_attribute`]'s; the image has gone.
    pub fn reset_instance_kernel(&self, instance_id: &str) -> Result<InstanceRecord> {
        let image = self.image_of(instance_id)?;
        let kernel = Some(image.kernel_id.map_or_else(|| "none".to_owned(), |id| id.to_string()));
        let instance_id = instance_id.to_owned();
        let request = ModifyInstanceAttribute { instance_id, kernel, ..Default::default() };
        self.modify_instance_attribute(&request)
    }

    /// EC2 ResetInstanceAttribute of the ramdisk.
    ///
    /// # Errors
    /// As [`Service::reset_instance_kernel`]'s.
    pub fn reset_instance_ramdisk(&self, instance_id: &str) -> Result<InstanceRecord> {
        let image = self.image_of(instance_id)?;
        let ramdisk = Some(image.ramdisk_id.map_or_else(|| "none".to_owned(), |id| id.to_string()));
        let instance_id = instance_id.to_owned();
        let request = ModifyInstanceAttribute { instance_id, ramdisk, ..Default::default() };
        self.modify_instance_attribute(&request)
    }

    fn image_of(&self, instance_id: &str) -> Result<Image> {
        let record = self.describe_instance(instance_id)?;
        self.store.images().get(&record.instance.image_id)
    }
}

/// As [`Service::run_instances`]. What it boots is in `boot`.
fn launch(
    store: &Store,
    request: &RunInstances,
    image: Image,
    boot: &mut BootFiles,
) -> Result<Launched> {
    let mut launch = request.request.clone();
    launch.tags.extend(request.system_tags.iter().cloned());
    let given = &request.request.block_device_mappings;
    let more = disks::mappings(store, &image, given, request.root_size, &request.volumes)?;
    launch.block_device_mappings.extend(more);
    if let Some(kernel) = &request.kernel_id {
        boot.kernel = Some(find::kernel(store, kernel)?);
        launch.kernel = boot.kernel_id();
    }
    if let Some(ramdisk) = &request.ramdisk_id {
        boot.ramdisk = Some(find::ramdisk(store, ramdisk)?);
        launch.ramdisk = boot.ramdisk_id();
    }
    product::check(store, &image)?;
    shares::check(store, &launch.shares)?;
    launch.cdroms = cdroms::resolve(&launch.cdroms)?;
    launch.key = key::for_launch(store, launch.key_name.as_deref())?
        .map(|pair| LaunchKey { name: pair.key_name, public_key: pair.public_key });
    kvm::check()?;
    // Beside what takes as long: the store's files.
    let _ = std::thread::Builder::new().spawn(host::cpuid);
    // Before anything is made.
    host::check(&launch.processor())?;
    launch.firmware = launch.firmware.as_deref().map(firmware).transpose()?;
    let given = launch.firmware.as_deref();
    let asked = launch.boot_mode;
    launch.boot_mode = instance::firmware::boot_mode(asked, image.boot_mode, given)?;
    without_firmware(store, asked, &image, &mut launch)?;
    let drivers = |kernel: Option<&_>, ramdisk: Option<&_>| kernel::drivers(store, kernel, ramdisk);
    let host = host(store)?;
    let mut plans = instance::launch::resolve(&launch, &image, host, &drivers, &mut RandomIds)?;
    if let Some(plan) = plans.iter().find(|plan| plan.kernel.is_none()) {
        // Before anything is made.
        instance::firmware::check(plan.boot_mode, launch.firmware.as_deref())?;
    }
    if let Some(warning) = instance::launch::overcommitted(&plans, host) {
        store.context().warn(warning);
    }
    crate::sys::process::raise_open_files();
    let placed = plans.iter_mut().flat_map(|plan| {
        let id = &plan.instance_id;
        plan.network_interfaces.iter_mut().map(|interface| (id.clone(), interface))
    });
    instance::vpc::place(store, placed.collect(), &launch.groups, launch.publish_all)?;
    let user_data = request.user_data.as_deref();
    let launched = lifecycle::launch(
        store,
        &plans,
        launch.min_count,
        user_data,
        request.wait_running,
        request.lifeline.as_deref(),
    );
    take_back(store, &plans, launched.as_ref().map_or(&[], |(records, _)| records));
    let (records, failures) = launched?;
    attribute::launched(store, &image);
    let provided = store.administrator().is_none_or(|uid| uid.to_string() == image.owner_id);
    let unvouched = !provided && image.owner_id != store.owner_id();
    Ok(Launched { image, unvouched, records, failures })
}

/// Has PV-GRUB boot an image that boots by UEFI alone where this host has no such firmware, and
/// nothing was said of how it is to boot. Says that the guest finds no EFI, then or where PV-GRUB
/// was asked for.
fn without_firmware(
    store: &Store,
    asked: Option<BootMode>,
    image: &Image,
    launch: &mut Request,
) -> Result<()> {
    if image.boot_mode != Some(BootMode::Uefi) {
        return Ok(());
    }
    let name = &image.name;
    let kernel = launch.kernel.as_ref().or(image.kernel_id.as_ref());
    if let Some(kernel) = kernel.filter(|kernel| PvGrub::of(kernel).is_some()) {
        store.context().note(format_args!(
            "guests of '{name}' find no EFI: {kernel} boots them in place of firmware"
        ));
        return Ok(());
    }
    let decided = kernel.is_some() || asked.is_some() || launch.firmware.is_some();
    let Some(root) = image.root_snapshot().filter(|_| !decided) else { return Ok(()) };
    if uefi::find(None, None).is_ok() {
        return Ok(());
    }
    let proposal = boot_method::of_snapshot(store, &store.snapshots().get(root)?)?;
    if let Some(kernel) = boot_method::pv_grub(&proposal.disk) {
        store.context().warn(format_args!(
            "guests of '{name}' find no EFI: there is no UEFI firmware here, and {kernel} boots what is on their disk; \
             install package ovmf (Debian, Ubuntu) or edk2-ovmf (Fedora, Arch) for more"
        ));
        launch.kernel = Some(kernel.parse()?);
    }
    Ok(())
}

/// What was given to those that did not come to be is others'.
fn take_back(store: &Store, plans: &[LaunchPlan], up: &[InstanceRecord]) {
    let is_up = |id: &InstanceId| up.iter().any(|record| record.instance.instance_id == *id);
    let failed = plans.iter().filter(|plan| !is_up(&plan.instance_id));
    let interfaces = failed.flat_map(|plan| {
        plan.network_interfaces.iter().map(|interface| (&plan.instance_id, interface))
    });
    instance::vpc::take_back(store, interfaces);
}

/// The firmware of that name, where it will be found again.
fn firmware(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).or_fail(|| format!("find {}", path.display()))?;
    instance::firmware::check(Some(instance::firmware::mode_of(&path)), Some(&path))?;
    Ok(path)
}

/// This host's limits, and what of them is taken.
pub(super) fn host(store: &Store) -> Result<Host> {
    Ok(Host { memory: memory()?, taken: dir::memory_in_use(store)? })
}

/// Bytes of RAM of this host.
fn memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").or_fail(|| "read /proc/meminfo")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    let kib = kib.ok_or_else(|| Error::failure("/proc/meminfo has no line MemTotal"))?;
    Ok(kib.saturating_mul(1024))
}

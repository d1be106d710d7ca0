//! All kinds of objects.

use super::Record;
use super::autoscaling::{AutoScalingGroup, LaunchConfiguration};
use super::image::Image;
use super::instance;
use super::kernel::{Kernel, Ramdisk};
use super::key::KeyPair;
use super::launch_template::LaunchTemplate;
use super::snapshot::Snapshot;
use super::task::Task;
use super::volume::Volume;
use super::vpc::Vpc;

/// The directory of each kind in a store.
pub const DIRECTORIES: [&str; 12] = [
    Image::DIRECTORY,
    Snapshot::DIRECTORY,
    Volume::DIRECTORY,
    Kernel::DIRECTORY,
    Ramdisk::DIRECTORY,
    KeyPair::DIRECTORY,
    instance::InstanceRecord::DIRECTORY,
    Vpc::DIRECTORY,
    LaunchTemplate::DIRECTORY,
    LaunchConfiguration::DIRECTORY,
    AutoScalingGroup::DIRECTORY,
    Task::DIRECTORY,
];

//! Launch configurations.

use super::find::{check_name, configurations, groups, named, own, validation};
use super::launch;
use crate::error::{Code, Error, Result};
use crate::id::LaunchConfigurationId;
use crate::image::catalog;
use crate::record::autoscaling::LaunchConfiguration;
pub use crate::record::autoscaling::{InstanceMetadataOptions, LaunchData};
use crate::service::Service;
use crate::service::launch::TYPES;
use crate::store::{Durability, now};

/// Most launch configurations of an account. (EC2 Auto Scaling, "Quotas")
pub const MAX_CONFIGURATIONS: usize = 200;

impl Service {
    /// CreateLaunchConfiguration. `made_for` is a group that it goes with.
    ///
    /// # Errors
    /// `AlreadyExists`, `LimitExceeded`; `ValidationError`: nothing could be launched by it.
    pub fn create_launch_configuration(
        &self,
        name: &str,
        launch: &LaunchData,
        made_for: Option<&str>,
    ) -> Result<LaunchConfiguration> {
        let store = &self.store;
        check_name("a launch configuration", name)?;
        launch::check(launch)?;
        catalog::resolve(store, &launch.image_id)?;
        if let Some(kind) = &launch.instance_type
            && !TYPES.iter().any(|known| known.name == kind)
        {
            let shown: String = kind.escape_debug().take(60).collect();
            return Err(validation(format!("the instance type '{shown}' is not there")));
        }
        let _lock = store.lock()?;
        let all = own(store, &configurations(store))?;
        if all.iter().any(|one| one.launch_configuration_name == name) {
            let why = format!("there is a launch configuration '{}' already", name.escape_debug());
            return Err(Error::refused(Code::AlreadyExists, why));
        }
        if all.len() >= MAX_CONFIGURATIONS {
            let why = format!("there are {MAX_CONFIGURATIONS} launch configurations; delete some");
            return Err(Error::refused(Code::LimitExceeded, why));
        }
        configurations(store).create(Durability::Durable, |_| {
            Ok(LaunchConfiguration {
                launch_configuration_id: LaunchConfigurationId::generate()?,
                launch_configuration_name: name.to_owned(),
                created_time: now(),
                launch: launch.clone(),
                owner_id: store.owner_id(),
                made_for: made_for.map(str::to_owned),
            })
        })
    }

    /// DescribeLaunchConfigurations: those named as far as they are there, or all, by name.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn describe_launch_configurations(
        &self,
        names: &[String],
    ) -> Result<Vec<LaunchConfiguration>> {
        let mut all = own(&self.store, &configurations(&self.store))?;
        all.retain(|one| names.is_empty() || names.contains(&one.launch_configuration_name));
        Ok(all)
    }

    /// DeleteLaunchConfiguration.
    ///
    /// # Errors
    /// `ValidationError`: there is none of that name. `ResourceInUse`: a group launches by it.
    pub fn delete_launch_configuration(&self, name: &str) -> Result<()> {
        let store = &self.store;
        let _lock = store.lock()?;
        let found = named(store, &configurations(store), name)?;
        let name = &found.launch_configuration_name;
        let uses = |group: &crate::record::autoscaling::AutoScalingGroup| {
            group.launch.launch_configuration() == Some(name)
        };
        if let Some(group) = own(store, &groups(store))?.into_iter().find(uses) {
            let why = format!(
                "the Auto Scaling group '{}' launches by the launch configuration '{}'",
                group.auto_scaling_group_name.escape_debug(),
                name.escape_debug()
            );
            return Err(Error::refused(Code::ResourceInUse, why));
        }
        configurations(store).remove(&found.launch_configuration_id)
    }
}

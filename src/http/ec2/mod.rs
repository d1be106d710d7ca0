//! Amazon EC2: a row for each action, in the file of what it is about. What has no row is not
//! there, and says so.

mod images;
mod instance_attributes;
mod instances;
mod keys;
mod launch;
mod launch_templates;
mod networks;
mod places;
mod snapshots;
mod tags;
mod tasks;
mod volumes;

use super::call::Action;

/// All actions.
pub fn rows() -> Vec<&'static [(&'static str, Action)]> {
    vec![
        images::ROWS,
        instance_attributes::ROWS,
        instances::ROWS,
        keys::ROWS,
        launch::ROWS,
        launch_templates::ROWS,
        networks::ROWS,
        places::ROWS,
        snapshots::ROWS,
        tags::ROWS,
        tasks::ROWS,
        volumes::ROWS,
    ]
}

//! Amazon EC2 Auto Scaling: a row for each action, in the file of what it is about.

mod configurations;
mod groups;
mod instances;
mod policies;
mod processes;
mod refreshes;
mod tags;

use super::call::Action;

/// All actions.
pub fn rows() -> Vec<&'static [(&'static str, Action)]> {
    vec![
        configurations::ROWS,
        groups::ROWS,
        instances::ROWS,
        policies::ROWS,
        processes::ROWS,
        refreshes::ROWS,
        tags::ROWS,
    ]
}

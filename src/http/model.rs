//! A service's model: what its actions take and answer, and what it is called on the wire.
//!
//! `scripts/service-model` makes the files of AWS's own models (botocore's), for the actions that
//! there are rows of.

use serde::Deserialize;
use std::collections::HashMap;

/// One service.
#[derive(Debug, Deserialize)]
pub struct Model {
    /// `apiVersion`, e.g. `2016-11-15`.
    pub version: String,
    /// Of the elements of its answers.
    pub namespace: String,
    actions: HashMap<String, Operation>,
    shapes: HashMap<String, Shape>,
}

/// What an action takes and answers.
#[derive(Debug, Default, Deserialize)]
pub struct Operation {
    /// The structure of its parameters.
    #[serde(rename = "in")]
    pub input: Option<String>,
    /// The structure of its answer.
    #[serde(rename = "out")]
    pub output: Option<String>,
    /// The element that stands around the answer.
    pub wrapper: Option<String>,
    /// The HTTP method, of a service that speaks REST.
    pub method: Option<String>,
    /// Its path, whose parts in braces have the names of members.
    pub uri: Option<String>,
    /// The status of its answer.
    pub status: Option<u16>,
    /// The body need not be signed.
    #[serde(default)]
    pub unsigned: bool,
}

/// A structure or a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Shape {
    /// A structure.
    Structure {
        /// Its members.
        members: Vec<Member>,
        /// The names of those that it can't be without.
        #[serde(default)]
        required: Vec<String>,
    },
    /// A list.
    List {
        /// Its words and its members' shape.
        list: List,
    },
}

/// A member of a structure: its name in the API's reference, as a parameter and as an element, and
/// its shape. With REST the middle two say where it is, e.g. `header:x-amz-Checksum`.
#[derive(Debug, Deserialize)]
pub struct Member(pub String, pub String, pub String, pub String);

/// What stands between a list's name and a number among the parameters, an element of the list
/// (none: the elements have the list's own name), and the shape of its members.
#[derive(Debug, Deserialize)]
pub struct List(pub String, pub String, pub String);

/// What a shape is.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// The members, and the names of those that are required.
    Structure(&'a [Member], &'a [String]),
    /// A list.
    List(&'a List),
    /// A value of that type: `string`, `integer`, `long`, `float`, `boolean`, `timestamp`, `blob`.
    Value(&'a str),
}

impl Model {
    /// The model in a file of `scripts/service-model`, which is a part of the program.
    pub fn parse(json: &str) -> Self {
        serde_json::from_str(json).expect("the model is a part of the program")
    }

    /// What an action takes and answers.
    pub fn action(&self, name: &str) -> Option<&Operation> {
        self.actions.get(name)
    }

    /// All actions.
    pub fn actions(&self) -> impl Iterator<Item = (&str, &Operation)> {
        self.actions.iter().map(|(name, operation)| (name.as_str(), operation))
    }

    /// What the shape of that name is.
    pub fn kind<'a>(&'a self, name: &'a str) -> Kind<'a> {
        match self.shapes.get(name) {
            Some(Shape::Structure { members, required }) => Kind::Structure(members, required),
            Some(Shape::List { list }) => Kind::List(list),
            None => Kind::Value(name),
        }
    }
}

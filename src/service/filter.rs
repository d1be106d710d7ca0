//! Filters as EC2's describe calls have them: values of one filter are alternatives, several
//! filters must all hold; a value is a pattern ([`pattern`]).

use crate::error::{Code, Error, Result};
use crate::store::pattern;
use serde::Serialize;
use serde_json::Value;

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// EC2's filter name, e.g. `instance-state-name` or `tag:Name`.
    pub name: String,
    /// Patterns, of which one must match.
    pub values: Vec<String>,
}

impl Filter {
    /// True if one of the object's values for this filter's name matches one of the patterns.
    fn matches<'a>(&self, values: impl IntoIterator<Item = &'a str>) -> bool {
        values
            .into_iter()
            .any(|value| self.values.iter().any(|wanted| pattern::matches(wanted, value)))
    }

    /// True if one of its patterns matches a value.
    pub fn accepts(&self, value: &str) -> bool {
        self.matches([value])
    }

    /// True if it matches what an object of EC2's has under the name that the filter's is spelled
    /// of: `vpc-id` is `VpcId`, `tag:KEY` and `tag-key` look into `Tags`.
    ///
    /// # Errors
    /// `InvalidParameterValue`: the object has nothing of that name.
    pub fn passes(&self, object: &Value) -> Result<bool> {
        if let Some(key) = self.name.strip_prefix("tag:") {
            return Ok(self.matches(tag_values(object, "Tags", key).iter().map(String::as_str)));
        }
        if self.name == "tag-key" {
            return Ok(self.matches(values_at(object, "Tags.Key").iter().map(String::as_str)));
        }
        let letter = |word: &str| {
            let mut rest = word.chars();
            rest.next().map_or_else(String::new, |c| c.to_uppercase().chain(rest).collect())
        };
        let part = |part: &str| part.split('-').map(letter).collect::<String>();
        let path: Vec<String> = self.name.split('.').map(part).collect();
        let known: Vec<&str> =
            object.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        match path.first() {
            Some(first) if known.contains(&first.as_str()) => {
                let values = values_at(object, &path.join("."));
                Ok(self.matches(values.iter().map(String::as_str)))
            }
            _ => Err(self.unknown(&known)),
        }
    }

    /// The error for a name that the action has no filter for.
    fn unknown(&self, known: &[&str]) -> Error {
        Error::refused(
            Code::InvalidParameterValue,
            format!(
                "the filter '{}' is unknown; there are {}",
                self.name.escape_debug(),
                known.join(", ")
            ),
        )
    }
}

/// The objects that each of `texts` addresses, one after the other.
///
/// # Errors
/// As `find`'s.
pub(super) fn found<R>(texts: &[String], find: impl Fn(&str) -> Result<Vec<R>>) -> Result<Vec<R>> {
    let found = texts.iter().map(|text| find(text)).collect::<Result<Vec<_>>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// The filters of an action.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filters {
    /// EC2's filter names and where their values are in the answer: field names, dots between,
    /// arrays meaning any.
    pub names: &'static [(&'static str, &'static str)],
    /// Where the answer has its tags, in the same way.
    pub tags: &'static str,
}

/// The objects that pass all filters, which look into their JSON.
///
/// # Errors
/// As [`select_by`]'s.
pub(super) fn select<R: Serialize>(
    objects: Vec<R>,
    filters: &[Filter],
    known: Filters,
) -> Result<Vec<R>> {
    select_by(objects, filters, known, |object| serde_json::to_value(object).unwrap_or_default())
}

/// The objects that pass all filters, which look into what `answer` makes of each.
///
/// # Errors
/// A filter has a name that is not in `known` (nor `tag:KEY` or `tag-key`).
pub(super) fn select_by<R>(
    mut objects: Vec<R>,
    filters: &[Filter],
    known: Filters,
    answer: impl Fn(&R) -> Value,
) -> Result<Vec<R>> {
    let paths = filters.iter().map(|filter| known.path(filter)).collect::<Result<Vec<_>>>()?;
    objects.retain(|object| {
        // Most lists are of all there is.
        let json = match filters {
            [] => return true,
            _ => answer(object),
        };
        filters.iter().zip(&paths).all(|(filter, path)| {
            let values = match filter.name.strip_prefix("tag:") {
                Some(key) => tag_values(&json, path, key),
                None => values_at(&json, path),
            };
            filter.matches(values.iter().map(String::as_str))
        })
    });
    Ok(objects)
}

impl Filters {
    /// Where a filter's values are in the answer; of `tag:KEY` where its tags are.
    fn path(&self, filter: &Filter) -> Result<String> {
        let known = self.names.iter().find(|(name, _)| *name == filter.name);
        match known {
            Some((_, path)) => Ok((*path).to_owned()),
            None if filter.name.starts_with("tag:") => Ok(self.tags.to_owned()),
            None if filter.name == "tag-key" => Ok(format!("{}.Key", self.tags)),
            None => {
                let names = self.names.iter().map(|(name, _)| *name);
                let names: Vec<&str> = names.chain(["tag:KEY", "tag-key"]).collect();
                Err(filter.unknown(&names))
            }
        }
    }
}

fn tag_values(json: &Value, path: &str, key: &str) -> Vec<String> {
    let tags = objects_at(json, path).into_iter().filter(|tag| tag["Key"].as_str() == Some(key));
    tags.filter_map(|tag| tag["Value"].as_str().map(str::to_owned)).collect()
}

/// The elements of all lists at a path.
fn objects_at<'a>(json: &'a Value, path: &str) -> Vec<&'a Value> {
    let (field, rest) = path.split_once('.').map_or((path, ""), |(field, rest)| (field, rest));
    match json {
        Value::Array(items) if path.is_empty() => items.iter().collect(),
        Value::Array(items) => items.iter().flat_map(|item| objects_at(item, path)).collect(),
        _ if path.is_empty() => Vec::new(),
        object => objects_at(&object[field], rest),
    }
}

fn values_at(json: &Value, path: &str) -> Vec<String> {
    let (field, rest) = match path.split_once('.') {
        Some((field, rest)) => (field, Some(rest)),
        None => (path, None),
    };
    match (json, rest) {
        (Value::Array(items), _) => items.iter().flat_map(|item| values_at(item, path)).collect(),
        (Value::Object(fields), Some(rest)) => {
            fields.get(field).map(|value| values_at(value, rest)).unwrap_or_default()
        }
        (Value::Object(fields), None) => fields.get(field).map(text).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn text(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(text).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_alternatives() {
        let filter = Filter { name: "name".into(), values: vec!["web".into(), "db*".into()] };
        assert!(filter.matches(["x", "db7"]));
        assert!(!filter.matches(["x"]));
    }

    #[test]
    fn filters_find_fields_lists_and_tags() {
        let records = vec![
            json!({"Name": "web", "Public": true, "Tags": [{"Key": "Env", "Value": "prod"}],
                   "Disks": [{"Ebs": {"Size": 1}}, {"Ebs": {"Size": 20}}]}),
            json!({"Name": "db", "Public": false, "Tags": []}),
        ];
        let names = &[("name", "Name"), ("is-public", "Public"), ("size", "Disks.Ebs.Size")];
        let known = Filters { names, tags: "Tags" };
        let filter = |text: &&str| {
            let (name, values) = text.split_once('=').unwrap();
            Filter { name: name.into(), values: values.split(',').map(str::to_owned).collect() }
        };
        let count = |texts: &[&str]| {
            let filters: Vec<Filter> = texts.iter().map(filter).collect();
            select(records.clone(), &filters, known).map(|found| found.len())
        };
        assert_eq!(count(&[]).unwrap(), 2);
        assert_eq!(count(&["name=w*,db"]).unwrap(), 2);
        assert_eq!(count(&["is-public=true", "name=db"]).unwrap(), 0);
        assert_eq!(count(&["size=20"]).unwrap(), 1);
        assert_eq!(count(&["tag:Env=prod"]).unwrap(), 1);
        assert_eq!(count(&["tag-key=E*"]).unwrap(), 1);
        assert!(count(&["colour=red"]).unwrap_err().to_string().contains("is-public"));
    }
}

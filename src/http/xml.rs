//! Answers of the Query protocols: XML in the shape that the service's model says.

use super::model::{Kind, List, Member, Model, Operation};
use crate::error::{Error, OrFail, Result};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use serde_json::Value;

/// How a service's answers and errors are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Amazon EC2's.
    Ec2,
    /// That of all others that speak Query.
    Query,
}

type Xml = Writer<Vec<u8>>;

/// The answer to an action.
///
/// # Errors
/// The answer has not the shape that the model says.
pub fn answer(
    model: &Model,
    dialect: Dialect,
    (action, operation): (&str, &Operation),
    value: &Value,
    request_id: &str,
) -> Result<Vec<u8>> {
    let mut xml = begun()?;
    let root = format!("{action}Response");
    let namespace = ("xmlns", model.namespace.as_str());
    write(&mut xml, Event::Start(BytesStart::new(&root).with_attributes([namespace])))?;
    let body = |xml: &mut Xml| match &operation.output {
        Some(shape) => whole(xml, model, shape, value),
        // Some clients take what has no such element for a failure.
        None if dialect == Dialect::Ec2 => text(xml, "return", "true"),
        None => Ok(()),
    };
    match dialect {
        Dialect::Ec2 => {
            text(&mut xml, "requestId", request_id)?;
            body(&mut xml)?;
        }
        Dialect::Query => {
            if let Some(wrapper) = &operation.wrapper {
                element(&mut xml, wrapper, body)?;
            }
            element(&mut xml, "ResponseMetadata", |xml| text(xml, "RequestId", request_id))?;
        }
    }
    write(&mut xml, Event::End(BytesEnd::new(&root)))?;
    Ok(xml.into_inner())
}

/// What an error is answered with. Some clients look for exactly these two elements, and for no
/// namespace.
///
/// # Errors
/// It can't be written.
pub fn fault(dialect: Dialect, error: &Error, request_id: &str) -> Result<Vec<u8>> {
    let mut xml = begun()?;
    let code = error.ec2_code();
    let said = |xml: &mut Xml| {
        text(xml, "Code", code.as_str())?;
        text(xml, "Message", error.message())
    };
    match dialect {
        Dialect::Ec2 => element(&mut xml, "Response", |xml| {
            element(xml, "Errors", |xml| element(xml, "Error", said))?;
            text(xml, "RequestID", request_id)
        })?,
        Dialect::Query => element(&mut xml, "ErrorResponse", |xml| {
            element(xml, "Error", |xml| {
                let sender = code.http_status() < 500;
                text(xml, "Type", if sender { "Sender" } else { "Receiver" })?;
                said(xml)
            })?;
            text(xml, "RequestId", request_id)
        })?,
    }
    Ok(xml.into_inner())
}

fn begun() -> Result<Xml> {
    let mut xml = Writer::new(Vec::new());
    write(&mut xml, Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    Ok(xml)
}

/// An answer's members. Its lists are there even if they are empty: clients ask for them without
/// looking. `Return` is what an answer has that came at all.
fn whole(xml: &mut Xml, model: &Model, shape: &str, value: &Value) -> Result<()> {
    let Kind::Structure(members, _) = model.kind(shape) else {
        return Err(Error::failure(format!("the shape {shape} is no structure")));
    };
    for Member(name, _, word, shape) in members {
        match (value.get(name), model.kind(shape)) {
            (Some(value), _) if !value.is_null() => shaped(xml, model, word, shape, value)?,
            // Where elements have the list's own name, one would be a member.
            (_, Kind::List(List(_, member, _))) if !member.is_empty() => {
                write(xml, Event::Empty(BytesStart::new(word)))?;
            }
            _ if name == "Return" => text(xml, word, "true")?,
            _ => {}
        }
    }
    known(members, value)
}

/// # Errors
/// The value has a member that the model does not know.
fn known(members: &[Member], value: &Value) -> Result<()> {
    let keys = value.as_object().into_iter().flat_map(|object| object.keys());
    // What is Spore's own is not on the wire.
    let mut unknown = keys.filter(|key| *key != "Spore" && members.iter().all(|m| m.0 != **key));
    match unknown.next() {
        None => Ok(()),
        Some(key) => Err(Error::failure(format!("the service's model has no {key} there"))),
    }
}

fn shaped(xml: &mut Xml, model: &Model, word: &str, shape: &str, value: &Value) -> Result<()> {
    match model.kind(shape) {
        Kind::Structure(members, _) => {
            known(members, value)?;
            element(xml, word, |xml| {
                for Member(name, _, word, shape) in members {
                    match value.get(name) {
                        None | Some(Value::Null) => {}
                        Some(value) => shaped(xml, model, word, shape, value)?,
                    }
                }
                Ok(())
            })
        }
        Kind::List(List(_, member, shape)) => {
            let values = value.as_array().map_or(&[][..], Vec::as_slice);
            if member.is_empty() {
                return values.iter().try_for_each(|value| shaped(xml, model, word, shape, value));
            }
            element(xml, word, |xml| {
                values.iter().try_for_each(|value| shaped(xml, model, member, shape, value))
            })
        }
        Kind::Value(_) => match value {
            Value::String(value) => text(xml, word, value),
            Value::Bool(_) | Value::Number(_) => text(xml, word, &value.to_string()),
            _ => Err(Error::failure(format!("the element {word} is a value"))),
        },
    }
}

fn element(xml: &mut Xml, word: &str, body: impl FnOnce(&mut Xml) -> Result<()>) -> Result<()> {
    write(xml, Event::Start(BytesStart::new(word)))?;
    body(xml)?;
    write(xml, Event::End(BytesEnd::new(word)))
}

/// An element with a text. A character that XML can't have, which a tag may, becomes U+FFFD. (XML
/// 1.0, 2.2 "Characters")
fn text(xml: &mut Xml, word: &str, value: &str) -> Result<()> {
    let is_char = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r') || c >= '\u{80}';
    let can =
        |c: char| if is_char(c) && !matches!(c, '\u{fffe}' | '\u{ffff}') { c } else { '\u{fffd}' };
    let value: String = value.chars().map(can).collect();
    element(xml, word, |xml| write(xml, Event::Text(BytesText::new(&value))))
}

fn write(xml: &mut Xml, event: Event<'_>) -> Result<()> {
    xml.write_event(event).or_fail(|| "write an answer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use serde_json::json;

    fn said(action: &str, value: Value) -> String {
        let model = Model::parse(include_str!("model/ec2.json"));
        let operation = model.action(action).unwrap();
        let xml = answer(&model, Dialect::Ec2, (action, operation), &value, "id").unwrap();
        String::from_utf8(xml).unwrap()
    }

    #[test]
    fn an_answer_has_the_models_elements() {
        let images = json!([{
            "ImageId": "ami-1", "Public": false, "Spore": {},
            "Tags": [{ "Key": "a<b", "Value": "\u{1}&" }],
        }]);
        assert_eq!(
            said("DescribeImages", json!({ "Images": images })),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><DescribeImagesResponse \
             xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>id</requestId><imagesSet>\
             <item><tagSet><item><key>a&lt;b</key><value>\u{fffd}&amp;</value></item></tagSet>\
             <imageId>ami-1</imageId><isPublic>false</isPublic></item></imagesSet>\
             </DescribeImagesResponse>"
        );
        assert!(said("DescribeInstances", json!({})).contains("<reservationSet/>"));
        assert!(said("CreateTags", json!({})).contains("<return>true</return>"));
        assert!(said("DeleteSecurityGroup", json!({})).contains("<return>true</return>"));
    }

    #[test]
    fn what_the_model_does_not_know_is_no_answer() {
        let model = Model::parse(include_str!("model/ec2.json"));
        let operation = model.action("DescribeImages").unwrap();
        for bad in [json!({ "Image": [] }), json!({ "Images": [{ "Imageid": "x" }] })] {
            let action = ("DescribeImages", operation);
            assert!(answer(&model, Dialect::Ec2, action, &bad, "id").is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_are_as_each_dialect_has_them() {
        let error = Error::refused(Code::InvalidAMIIDNotFound, "no <image>");
        let ec2 = String::from_utf8(fault(Dialect::Ec2, &error, "id").unwrap()).unwrap();
        assert!(ec2.ends_with(
            "<Response><Errors><Error><Code>InvalidAMIID.NotFound</Code><Message>no &lt;image&gt;\
             </Message></Error></Errors><RequestID>id</RequestID></Response>"
        ));
        let query = String::from_utf8(fault(Dialect::Query, &error, "id").unwrap()).unwrap();
        assert!(query.ends_with(
            "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidAMIID.NotFound</Code><Message>no \
             &lt;image&gt;</Message></Error><RequestId>id</RequestId></ErrorResponse>"
        ));
    }
}

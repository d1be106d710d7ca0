//! As much of XML as a bundle's manifest has: elements, attributes and text. No entities but the
//! five, no DTD.

use super::refusal::invalid;
use crate::error::Result;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::ops::Range;

/// Deepest nesting.
const MAX_DEPTH: usize = 12;
/// Most elements and attributes: five of each part, of which the longest manifest names some 65
/// 000.
const MAX_NODES: usize = 400_000;
/// Most attributes of an element; ours have one.
const MAX_ATTRIBUTES: usize = 64;
/// Most pieces of any kind that a document is read in.
const MAX_EVENTS: usize = 1 << 20;

/// An element.
#[derive(Debug, Default)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub attributes: Vec<(String, String)>,
    /// Its own text, without space around it.
    pub text: String,
    /// The elements in it.
    pub children: Vec<Element>,
    /// Where it is in the document.
    pub span: Range<usize>,
}

impl Element {
    /// The child of that name.
    ///
    /// # Errors
    /// There is not exactly one.
    pub fn child(&self, name: &str) -> Result<&Element> {
        let mut found = self.children.iter().filter(|child| child.name == name);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            _ => Err(invalid(format!("its manifest has not one {name} in {}", self.name))),
        }
    }

    /// The text of the child of that name, if there is such a child.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.children.iter().find(|child| child.name == name).map(|child| &*child.text)
    }

    /// An attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }
}

fn broken(why: impl std::fmt::Display) -> crate::error::Error {
    let why: String = why.to_string().escape_debug().take(200).collect();
    invalid(format!("its manifest is malformed: {why}"))
}

/// Read a document's root element.
///
/// # Errors
/// `InvalidManifest`.
pub fn parse(text: &str) -> Result<Element> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = vec![Element::default()];
    let (mut events, mut nodes) = (0, 0);
    let mut counted = |element: Element| {
        nodes += 1 + element.attributes.len();
        if nodes > MAX_NODES { Err(broken("it has too many elements")) } else { Ok(element) }
    };
    loop {
        events += 1;
        if events > MAX_EVENTS {
            return Err(broken("it has too many pieces"));
        }
        let before = reader.buffer_position() as usize;
        let event = reader.read_event().map_err(broken)?;
        let after = reader.buffer_position() as usize;
        match event {
            Event::Start(start) if open.len() <= MAX_DEPTH => {
                open.push(counted(begin(&start, before..after)?)?);
            }
            Event::Start(_) => return Err(broken("it is nested too deep")),
            Event::Empty(start) => {
                let element = counted(begin(&start, before..after)?)?;
                open.last_mut().ok_or_else(|| broken("no element"))?.children.push(element);
            }
            Event::End(_) => {
                let mut element = open.pop().ok_or_else(|| broken("no element"))?;
                element.span.end = after;
                element.text = element.text.trim().to_owned();
                open.last_mut().ok_or_else(|| broken("an end too many"))?.children.push(element);
            }
            Event::Text(piece) => add(&mut open, &piece.decode().map_err(broken)?),
            Event::CData(piece) => add(&mut open, &piece.decode().map_err(broken)?),
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(broken)?;
                let whole = format!("&{name};");
                let text = quick_xml::escape::unescape(&whole).map_err(broken)?;
                add(&mut open, &text);
            }
            Event::DocType(_) => return Err(broken("it has a document type")),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    let mut document = open.pop().filter(|_| open.is_empty()).ok_or_else(|| broken("cut short"))?;
    let one = document.children.len() == 1;
    document.children.pop().filter(|_| one).ok_or_else(|| broken("it has not one root"))
}

fn add(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn begin(start: &BytesStart<'_>, span: Range<usize>) -> Result<Element> {
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(broken);
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        if attributes.len() == MAX_ATTRIBUTES {
            return Err(broken("an element has too many attributes"));
        }
        let attribute = attribute.map_err(broken)?;
        attributes.push((utf8(attribute.key.as_ref())?, utf8(&attribute.value)?));
    }
    let name = utf8(start.name().as_ref())?;
    Ok(Element { name, attributes, span, ..Element::default() })
}

/// `<name>text</name>`.
pub fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", quick_xml::escape::escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_takes_memory_and_time_as_a_manifest_does() {
        let document = |within: String| parse(&format!("<a>{within}</a>"));
        let part =
            "<part index=\"7\"><filename>b</filename><digest algorithm=\"SHA1\">c</digest></part>";
        assert_eq!(document(part.repeat(65_000)).unwrap().children.len(), 65_000);
        let attributes: String = (0..65).map(|n| format!(" a{n}=\"\"")).collect();
        for (within, why) in [
            ("<b/>".repeat(MAX_NODES), "too many elements"),
            ("<b c=\"\"/>".repeat(MAX_NODES / 2), "too many elements"),
            ("&lt;".repeat(MAX_EVENTS), "too many pieces"),
            (format!("<b{attributes}/>"), "too many attributes"),
        ] {
            let error = document(within).unwrap_err();
            assert!(error.message().contains(why), "{error}");
        }
    }
}

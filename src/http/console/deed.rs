//! What can be done to an object, as a form: its fields become the members of an action's request.

use super::form::Form;
use super::view::{Choice, FieldView, FormView};
use super::visit::Visit;
use crate::error::{Code, Error, Result};
use serde_json::{Value, json};

/// Which service an action is of.
pub type Api = &'static str;

/// A form, and the action that it asks for.
pub struct Deed {
    /// Its word in the address.
    pub word: &'static str,
    /// Its heading, and the text of its button.
    pub title: &'static str,
    /// The service.
    pub api: Api,
    /// The action.
    pub action: &'static str,
    /// The member of the request that names the object; none if empty.
    pub of: &'static str,
    /// What is asked.
    pub fields: &'static [Field],
    /// What becomes of it, before the button.
    pub note: &'static str,
    /// Whether something is lost by it.
    pub danger: bool,
    /// Whether it can be done to an object as it is.
    pub when: fn(&Value) -> bool,
    /// Gives the request the action's shape; another action than [`Deed::action`] if it says so.
    pub shape: fn(&mut Value) -> Result<Option<&'static str>>,
    /// Does it, where no action of AWS's does.
    pub own: Option<fn(&Visit<'_>) -> Result<()>>,
    /// Where the answer has the id of what was made, as a JSON pointer; the object's own if empty.
    pub made: &'static str,
}

/// What a deed is where nothing else is said.
pub const DEED: Deed = Deed {
    word: "",
    title: "",
    api: "ec2",
    action: "",
    of: "",
    fields: &[],
    note: "",
    danger: false,
    when: |_| true,
    shape: |_| Ok(None),
    own: None,
    made: "",
};

/// What may be chosen, of an object's record.
type Choices = fn(&Visit<'_>, &Value) -> Result<Vec<Choice>>;

/// How a field is filled in.
#[derive(Clone, Copy)]
pub enum Input {
    /// A line of at most so many characters.
    Line(u32),
    /// Lines.
    Lines,
    /// A number.
    Number,
    /// A box to tick.
    Check,
    /// One of these: value and text.
    One(&'static [(&'static str, &'static str)]),
    /// One of what there is.
    Of(Choices),
}

/// A field of a form.
#[derive(Clone, Copy)]
pub struct Field {
    /// The request's member.
    pub member: &'static str,
    /// What is written before it.
    pub label: &'static str,
    /// How it is filled in.
    pub input: Input,
    /// Whether it has to be.
    pub required: bool,
    /// What it is filled in with: a JSON pointer into the object's record, or a text.
    pub value: &'static str,
}

/// A field that may be left empty.
pub const fn field(member: &'static str, label: &'static str, input: Input) -> Field {
    Field { member, label, input, required: false, value: "" }
}

impl Field {
    /// It has to be filled in.
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// It is filled in with this: a text, or where the record has it.
    pub const fn with(self, value: &'static str) -> Self {
        Self { value, ..self }
    }

    fn view(&self, visit: &Visit<'_>, record: &Value, word: &str) -> Result<FieldView> {
        let choice = |&(value, text): &(&str, &str)| Choice::of(value, text);
        let (kind, most, choices) = match self.input {
            Input::Line(most) => ("line", most, Vec::new()),
            Input::Lines => ("lines", 0, Vec::new()),
            Input::Number => ("number", 0, Vec::new()),
            Input::Check => ("check", 0, Vec::new()),
            Input::One(all) => ("one", 0, all.iter().map(choice).collect()),
            Input::Of(choices) => ("one", 0, choices(visit, record)?),
        };
        let value = match record.pointer(self.value) {
            Some(Value::String(text)) if self.value.starts_with('/') => text.clone(),
            Some(Value::Number(number)) if self.value.starts_with('/') => number.to_string(),
            _ if self.value.starts_with('/') => String::new(),
            _ => self.value.to_owned(),
        };
        let (member, label, required) = (self.member, self.label, self.required);
        let id = format!("{word}-{member}");
        Ok(FieldView { id, member, label, kind, most, required, value, choices })
    }

    /// What was filled in, as the request has it.
    fn read(&self, form: &Form) -> Result<Option<Value>> {
        let text = form.given(self.member);
        match (self.input, text) {
            (Input::Check, _) => Ok(Some(form.is_set(self.member).into())),
            (_, None) if self.required => {
                let why = format!("'{}' is empty", self.label);
                Err(Error::refused(Code::MissingParameter, why))
            }
            (_, None) => Ok(None),
            (Input::Number, Some(text)) => match text.parse::<u64>() {
                Ok(number) => Ok(Some(number.into())),
                Err(_) => {
                    let why = format!("'{}' is no number: {}", self.label, text.escape_debug());
                    Err(Error::refused(Code::InvalidParameterValue, why))
                }
            },
            (Input::Lines, _) => Ok(Some(form.text(self.member).into())),
            (_, Some(text)) => Ok(Some(text.into())),
        }
    }
}

impl Deed {
    /// Its form, for an object of `section`; `-` is none.
    ///
    /// # Errors
    /// What there is to choose from can't be read.
    pub fn view(
        &self,
        visit: &Visit<'_>,
        (section, id): (&str, &str),
        record: &Value,
    ) -> Result<FormView> {
        let fields = self.fields.iter().map(|field| field.view(visit, record, self.word));
        Ok(FormView {
            to: format!("/console/{section}/{}/{}", super::view::escaped(id), self.word),
            title: self.title,
            note: self.note,
            danger: self.danger,
            fields: fields.collect::<Result<_>>()?,
        })
    }

    /// Does what a form asks; the action's answer, and the id of what it was done to.
    ///
    /// # Errors
    /// The action's; a field is not filled in.
    pub fn act(&self, visit: &Visit<'_>, id: &str) -> Result<(Value, String)> {
        let mut request = json!({});
        if !self.of.is_empty() {
            request[self.of] = id.into();
        }
        for field in self.fields {
            if let Some(value) = field.read(&visit.form)? {
                request[field.member] = value;
            }
        }
        if let Some(own) = self.own {
            return own(visit).map(|()| (Value::Null, id.to_owned()));
        }
        let action = (self.shape)(&mut request)?.unwrap_or(self.action);
        let answer = visit.perform_of(self.api, action, request)?;
        let made = answer.pointer(self.made).and_then(Value::as_str);
        let made = made.filter(|_| !self.made.is_empty()).unwrap_or(id).to_owned();
        Ok((answer, made))
    }
}

/// Makes tags of the field `Tag`, for what the action makes.
pub fn named(request: &mut Value, kind: &str) {
    let name = request.as_object_mut().and_then(|request| request.shift_remove("Tag"));
    if let Some(name) = name {
        let tags = json!([{ "Key": "Name", "Value": name }]);
        request["TagSpecifications"] = json!([{ "ResourceType": kind, "Tags": tags }]);
    }
}

/// Takes a member out of a request: text, empty without.
pub fn taken(request: &mut Value, member: &str) -> String {
    let value = request.as_object_mut().and_then(|request| request.shift_remove(member));
    value.and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

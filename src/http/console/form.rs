//! What a browser sends: the fields of a form, or of an address.

/// Most fields of a form.
const MAX_FIELDS: usize = 512;

/// Fields by name; a name may be there several times.
#[derive(Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Of what is urlencoded.
    pub fn parse(bytes: &[u8]) -> Self {
        let fields = form_urlencoded::parse(bytes).take(MAX_FIELDS);
        Self(fields.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// The first field of that name; empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }

    /// The same, if it is there and not empty.
    pub fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name).trim()).filter(|text| !text.is_empty())
    }

    /// All fields of that name.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(field, _)| field == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether a box is ticked.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.iter().any(|(field, _)| field == name)
    }

    /// All of them, for another form to bring along.
    pub fn fields(&self) -> &[(String, String)] {
        &self.0
    }
}

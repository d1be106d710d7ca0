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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a browser sends has at most so many fields, which are no longer than it.
        #[test]
        fn a_form_is_no_larger_than_what_was_sent(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let form = Form::parse(&bytes);
            let length: usize = form.fields().iter().map(|(name, value)| name.len() + value.len()).sum();
            prop_assert!(form.fields().len() <= MAX_FIELDS);
            // A byte that is no UTF-8 becomes the replacement character's three.
            prop_assert!(length <= 3 * bytes.len());
            form.fields().iter().for_each(|(name, _)| assert!(form.is_set(name)));
        }
    }

    #[test]
    fn fields_beyond_the_most_are_left() {
        assert_eq!(
            Form::parse("a=1&".repeat(4 * MAX_FIELDS).as_bytes()).all("a").len(),
            MAX_FIELDS
        );
    }
}

//! What a browser sends to the console: the fields of a form, or of an address.

use sporevm::http::form::Form;

/// The fields are as few and as long as what was sent allows, and each is found by its name.
pub fn drive(data: &[u8]) {
    let form = Form::parse(data);
    let fields = form.fields();
    let length: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    // A byte that is no UTF-8 becomes the replacement character's three.
    assert!(fields.len() <= 512 && length <= 3 * data.len(), "{} fields", fields.len());
    for (name, value) in fields {
        assert!(form.is_set(name) && form.all(name).contains(value));
        assert!(form.given(name).is_none_or(|given| form.text(name).contains(given)));
    }
}

/// A form as the console's pages have it.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        b"csrf=0123abcd&Name=web&Description=a+b%20c&CopyImageTags=on&DestinationRegion=hub".into(),
        b"id=i-1&id=i-2&action=terminate&sure=".into(),
        b"Device1=%2Fdev%2Fsdb&Size1=8&&=&%zz&a=b=c&%ff=%fe".into(),
    ]
}

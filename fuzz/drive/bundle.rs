//! A bundle's manifest.

use sporevm::transfer::bundle::examine;

/// Read it as if its signature were right.
pub fn drive(data: &[u8]) {
    let _ = examine::manifest(&String::from_utf8_lossy(data));
}

/// A manifest.
pub fn seeds() -> Vec<Vec<u8>> {
    let digest = |byte: &str| format!("<digest algorithm=\"SHA1\">{}</digest>", byte.repeat(20));
    let text = format!(
        "<?xml version=\"1.0\"?><manifest><version>2007-10-10</version><bundler><name>spore</name></bundler>\
         <machine_configuration><architecture>x86_64</architecture><kernel_id>aki-0123456789abcdef0</kernel_id>\
         <block_device_mapping><mapping><virtual>ami</virtual><device>sda1</device></mapping></block_device_mapping>\
         <product_codes><product_code>abc</product_code></product_codes></machine_configuration>\
         <image><name>a &amp; b</name><user>1</user><type>machine</type>{}<size>1048576</size>\
         <bundled_size>4096</bundled_size><ec2_encrypted_key algorithm=\"AES\">00</ec2_encrypted_key>\
         <parts count=\"2\"><part index=\"0\"><filename>a.part.0</filename>{}</part>\
         <part index=\"1\"><filename>a.part.1</filename>{}</part></parts></image><signature>00</signature></manifest>",
        digest("ab"),
        digest("cd"),
        digest("ef")
    );
    vec![text.into_bytes()]
}

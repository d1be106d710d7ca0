//! What a client sends to the EC2 service before it is known who it is, and the parameters of its
//! actions.

use hyper::Request;
use sporevm::http::model::Model;
use sporevm::http::{query, signature};
use std::sync::OnceLock;

fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Model::parse(include_str!("../../src/http/model/ec2.json")))
}

/// A request's target, then a line of each header, an empty line, and the body: the signature is
/// looked at, and the parameters become the request of the action that they name.
pub fn drive(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let mut request = Request::post(lines.next().unwrap_or_default());
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    if let Ok(request) = request.body(()) {
        let parts = request.into_parts().0;
        if let Ok(credential) = signature::credential(&parts) {
            assert!(signature::verify(&parts, (body.as_bytes(), false), &credential, "secret").is_err());
        }
    }
    let pairs = form_urlencoded::parse(body.as_bytes());
    let pairs: Vec<_> = pairs.map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    let action = pairs.iter().find(|(key, _)| key == "Action").map(|(_, name)| name.as_str());
    let operation = model().action(action.unwrap_or_default());
    if let Some(operation) = operation.or_else(|| model().action("RunInstances")) {
        let request = query::request(model(), operation.input.as_deref(), &pairs);
        // What it becomes is no larger than what was said.
        let size = request.map(|request| request.to_string().len()).unwrap_or_default();
        assert!(size <= 64 + 64 * body.len(), "{size}");
    }
}

/// Requests that are nearly right.
pub fn seeds() -> Vec<Vec<u8>> {
    let head = "/\nhost: x\nx-amz-date: 20260131T120000Z\nauthorization: AWS4-HMAC-SHA256 \
                Credential=AKIAAAAAAAAAAAAAAAAA/20260131/local-1/ec2/aws4_request, \
                SignedHeaders=host;x-amz-date, Signature=00ff";
    let run = "Action=RunInstances&Version=2016-11-15&ImageId=demo&MinCount=1&MaxCount=2&\
               BlockDeviceMapping.1.Ebs.VolumeSize=8&TagSpecification.1.Tag.1.Key=a&UserData=eA%3D%3D";
    let presigned = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20260131%2Fl%2Fec2%2Faws4_request\
                     &X-Amz-Date=20260131T120000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00";
    vec![
        format!("{head}\n\n{run}").into(),
        format!("{presigned}\nhost: x\n\nAction=CreateTags&ResourceId.0=i-1&Tag.0.Key=b").into(),
        b"/\n\nAction=DescribeInstances&Filter.1.Name=tag:a&Filter.1.Value.1=*&MaxResults=5".into(),
    ]
}

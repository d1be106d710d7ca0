use super::*;
use http_body_util::BodyExt;

fn metadata() -> Metadata {
    let leaves = [
        ("meta-data/instance-id", "i-00000000000000001"),
        ("meta-data/a-b", "beside a/"),
        ("meta-data/a/b", "leaf"),
        ("meta-data/a/c/d", "deep"),
        ("meta-data/public-keys/", "0=mine"),
        ("meta-data/public-keys/0/openssh-key", "ssh-ed25519 AAAA mine"),
        ("meta-data/tags/instance/a:b", "tag"),
        ("dynamic/instance-identity/document", "{}"),
        ("user-data", "\0\u{1}"),
    ];
    let leaves = leaves.map(|(path, value)| (path.to_owned(), value.into()));
    Metadata { leaves: leaves.into(), ..Metadata::default() }
}

struct Answered {
    status: u16,
    body: String,
    headers: HeaderMap,
}

fn ask(metadata: &Metadata, tokens: &Tokens, request: hyper::http::request::Builder) -> Answered {
    let request = request.body(()).unwrap().into_parts().0;
    let (parts, body) = answer(metadata, tokens, &request).into_parts();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let body = runtime.block_on(body.collect()).unwrap().to_bytes();
    Answered {
        status: parts.status.as_u16(),
        body: String::from_utf8(body.into()).unwrap(),
        headers: parts.headers,
    }
}

fn request(method: &str, path: &str) -> hyper::http::request::Builder {
    hyper::Request::builder().method(method).uri(path)
}

#[test]
fn leaves_and_listings_are_ec2s() {
    let (metadata, tokens) = (metadata(), Tokens::generate().unwrap());
    let versions = VERSIONS.join("\n");
    for (path, found) in [
        ("/", versions.as_str()),
        ("/latest", "dynamic\nmeta-data\nuser-data"),
        ("/2009-04-04/", "dynamic\nmeta-data\nuser-data"),
        ("/latest/meta-data", "a-b\na/\ninstance-id\npublic-keys/\ntags/"),
        ("/latest/meta-data/", "a-b\na/\ninstance-id\npublic-keys/\ntags/"),
        ("//latest//meta-data//a/", "b\nc/"),
        ("/2021-03-23/meta-data/a/b", "leaf"),
        ("/latest/meta-data/a/c/d", "deep"),
        ("/latest/meta-data/public-keys", "0=mine"),
        ("/latest/meta-data/public-keys/", "0=mine"),
        ("/latest/meta-data/public-keys/0", "openssh-key"),
        ("/latest/meta-data/public-keys/0/openssh-key", "ssh-ed25519 AAAA mine"),
        ("/latest/meta-data/tags/instance/a%3Ab", "tag"),
        ("/latest/dynamic/instance-identity", "document"),
        ("/latest/user-data", "\0\u{1}"),
        ("/latest/user-data?x=y", "\0\u{1}"),
    ] {
        let answered = ask(&metadata, &tokens, request("GET", path));
        assert_eq!((answered.status, answered.body.as_str()), (200, found), "{path}");
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let (metadata, tokens) = (metadata(), Tokens::generate().unwrap());
    for path in [
        "/lates",
        "/2030-01-01/",
        "/latest/meta-data/a/b/",
        "/latest/meta-data/a/bb",
        "/latest/meta-data/iam/",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/meta-data/spot/instance-action",
        "/latest/meta-data/../user-data",
        "/latest/api/",
        "/latest/user-data/",
        "/latest/meta-data/public-keys/1/openssh-key",
    ] {
        let answered = ask(&metadata, &tokens, request("GET", path));
        assert_eq!(answered.status, 404, "{path}");
        assert!(answered.body.contains("404 - Not Found"), "{path}");
    }
    for path in ["/latest/meta-data/a%2Fb", "/latest/%ff", "/%00"] {
        assert_eq!(ask(&metadata, &tokens, request("GET", path)).status, 400, "{path}");
    }
}

#[test]
fn a_token_is_had_as_ec2_gives_it() {
    let (metadata, tokens) = (metadata(), Tokens::generate().unwrap());
    let put = |ttl: &str| request("PUT", "/latest/api/token").header(TTL, ttl);
    for ttl in ["1", "21600"] {
        let answered = ask(&metadata, &tokens, put(ttl));
        assert_eq!(answered.status, 200, "{ttl}");
        assert_eq!(answered.headers[TTL], ttl);
        let left = tokens.remaining(metadata.instance_id(), answered.body.as_bytes());
        assert!(left.is_some_and(|left| left <= ttl.parse().unwrap()));
    }
    for ttl in ["", "0", "21601", "-1", "1.5", "x", "99999999999999999999"] {
        assert_eq!(ask(&metadata, &tokens, put(ttl)).status, 400, "{ttl}");
    }
    assert_eq!(ask(&metadata, &tokens, request("PUT", "/latest/api/token")).status, 400);
    assert_eq!(ask(&metadata, &tokens, put("60").header(TTL, "60")).status, 400);
    assert_eq!(ask(&metadata, &tokens, put("60").header(FORWARDED, "10.0.0.1")).status, 403);
}

#[test]
fn what_can_be_had_one_way_can_be_had_no_other() {
    let (metadata, tokens) = (metadata(), Tokens::generate().unwrap());
    for (method, path) in [
        ("GET", "/latest/api/token"),
        ("POST", "/latest/api/token"),
        ("PUT", "/latest/meta-data/"),
        ("PUT", "/latest/api/token/"),
        ("DELETE", "/latest/user-data"),
        ("BREW", "/"),
    ] {
        let answered = ask(&metadata, &tokens, request(method, path).header(TTL, "60"));
        assert_eq!(answered.status, 405, "{method} {path}");
    }
    assert_eq!(ask(&metadata, &tokens, request("HEAD", "/latest/meta-data/")).status, 200);
}

#[test]
fn a_token_is_needed_where_the_options_say_so_and_never_wrong() {
    let (mut metadata, tokens) = (metadata(), Tokens::generate().unwrap());
    let id = metadata.instance_id().to_vec();
    let good = tokens.issue(&id, 60).unwrap();
    let of_another = tokens.issue(b"i-00000000000000002", 60).unwrap();
    let get = || request("GET", "/latest/meta-data/instance-id");
    for required in [HttpTokens::Optional, HttpTokens::Required] {
        metadata.options.http_tokens = required;
        let status = |request| ask(&metadata, &tokens, request).status;
        let bare = if required == HttpTokens::Required { 401 } else { 200 };
        assert_eq!(status(get()), bare);
        assert_eq!(status(request("GET", "/")), bare);
        assert_eq!(status(get().header(TOKEN, &good)), 200);
        assert_eq!(status(get().header(TOKEN, &of_another)), 401);
        assert_eq!(status(get().header(TOKEN, "")), 401);
        assert_eq!(status(get().header(TOKEN, &good).header(TOKEN, &good)), 401);
        // What is not there is told only to who may ask.
        assert_eq!(status(request("GET", "/latest/x").header(TOKEN, &of_another)), 401);
    }
    let left = &ask(&metadata, &tokens, get().header(TOKEN, &good)).headers[TTL];
    assert!((1..=60).contains(&left.to_str().unwrap().parse().unwrap()));
}

#[test]
fn nobody_is_answered_where_the_endpoint_is_off() {
    let (mut metadata, tokens) = (metadata(), Tokens::generate().unwrap());
    metadata.options.http_endpoint = Endpoint::Disabled;
    for request in [
        request("GET", "/latest/meta-data/"),
        request("PUT", "/latest/api/token").header(TTL, "60"),
        request("GET", "/").header(TOKEN, tokens.issue(metadata.instance_id(), 60).unwrap()),
    ] {
        let answered = ask(&metadata, &tokens, request);
        assert_eq!(answered.status, 403);
        assert!(!answered.body.contains("i-0"));
    }
}

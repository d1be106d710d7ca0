//! What a bucket's service answers, no longer than it may be: its client reads lists and reasons
//! whole.

use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use std::future::Future;
use std::pin::Pin;

/// Longest page of a list, in bytes: 1000 names of 1024 bytes, each of which may be written as
/// five, and what is around.
const MAX_PAGE: usize = 8 << 20;
/// Longest answer that says why not, in bytes.
const MAX_REASON: usize = 64 << 10;

/// Connects as usual.
#[derive(Debug)]
pub(super) struct Bounded;

impl HttpConnector for Bounded {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Service(HttpClient);

type Answered<'a> =
    Pin<Box<dyn Future<Output = std::result::Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Service {
    // As `async_trait` would write it.
    fn call<'life0, 'async_trait>(&'life0 self, request: HttpRequest) -> Answered<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let list = request.uri().query().is_some_and(|query| query.contains("list-type="));
        Box::pin(async move {
            let answer = self.0.execute(request).await?;
            let most = match (answer.status().is_success(), list) {
                (false, _) => MAX_REASON,
                (true, true) => MAX_PAGE,
                // An object is read piece by piece, and bounded there.
                (true, false) => return Ok(answer),
            };
            Ok(answer.map(|body| {
                let body = Limited::new(body, most);
                HttpResponseBody::new(body.map_err(move |error| {
                    let why = match error.downcast_ref::<http_body_util::LengthLimitError>() {
                        Some(_) => format!("its answer has more than {} KiB", most >> 10),
                        None => error.to_string(),
                    };
                    HttpError::new(HttpErrorKind::Decode, std::io::Error::other(why))
                }))
            }))
        })
    }
}

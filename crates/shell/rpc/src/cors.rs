//! Which pages of other origins a browser may let ask this server over HTTP (`--cors`).
//!
//! //= etcd 3.7.3: server/embed/serve.go#accessController, server/etcdserver/server_access_control.go

use std::collections::BTreeSet;

use http::{HeaderValue, Method, Request, Response, header};

const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static("accept, content-type, authorization");
const ANY: HeaderValue = HeaderValue::from_static("*");

/// Origins whose pages may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// All.
    #[default]
    Any,
    /// These, as the header `Origin` has them.
    Only(BTreeSet<String>),
}

impl Cors {
    /// What is allowed to who asks like this; `None` if nothing is.
    fn allowed<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        match self {
            Cors::Any => Some(ANY),
            Cors::Only(origins) => {
                let origin = request.headers().get(header::ORIGIN)?;
                origins.contains(origin.to_str().ok()?).then(|| origin.clone())
            }
        }
    }

    /// Answers a request by `answer`, or by itself if it only asks what it may, and says in the
    /// headers who may read it.
    pub async fn guard<B, C: Default, F: Future<Output = Response<C>>>(
        &self,
        request: Request<B>,
        answer: impl FnOnce(Request<B>) -> F,
    ) -> Response<C> {
        let allowed = self.allowed(&request);
        let mut response = if request.method() == Method::OPTIONS {
            Response::default()
        } else {
            answer(request).await
        };
        if let Some(origin) = allowed {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;
    use crate::HttpResponse;

    fn asked(cors: &Cors, method: Method, origin: &str) -> (StatusCode, Option<String>) {
        let request = http::Request::builder().method(method).uri("/health");
        let request = request.header("origin", origin).body(Bytes::new()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let response = runtime.block_on(cors.guard(request, |_| async {
            let mut teapot = HttpResponse::default();
            *teapot.status_mut() = StatusCode::IM_A_TEAPOT;
            teapot
        }));
        let allowed = response.headers().get("access-control-allow-origin");
        (response.status(), allowed.map(|v| v.to_str().unwrap().to_owned()))
    }

    #[test]
    fn every_answer_says_who_may_read_it_and_preflights_are_answered() {
        let any = Cors::default();
        let star = Some("*".to_owned());
        assert_eq!(asked(&any, Method::GET, "http://a:1"), (StatusCode::IM_A_TEAPOT, star.clone()));
        assert_eq!(asked(&any, Method::OPTIONS, "http://a:1"), (StatusCode::OK, star));
        let one = Cors::Only(["http://a:1".to_owned()].into());
        let named = Some("http://a:1".to_owned());
        assert_eq!(asked(&one, Method::OPTIONS, "http://a:1"), (StatusCode::OK, named));
        assert_eq!(asked(&one, Method::GET, "http://b:1"), (StatusCode::IM_A_TEAPOT, None));
    }
}

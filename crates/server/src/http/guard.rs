//! Who may ask: names of this machine, pages of other sites, keys.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, StatusCode, Uri};

use crate::error::ApiError;
use crate::http::body::shown;
use crate::options::{Listen, Options};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What decides who may ask.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Requests must be sent to a name of this machine: so a page whose name was made to point here
    /// gets nothing (DNS rebinding).
    checks_host: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
    keys: Vec<Vec<u8>>,
}

impl Guard {
    pub fn new(options: &Options, listen: &Listen) -> Guard {
        let is_loopback = matches!(listen, Listen::Tcp(address) if address.ip().is_loopback());
        Guard {
            checks_host: is_loopback || !options.hosts.is_empty(),
            hosts: options.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            origins: options.origins.clone(),
            keys: options.keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
        }
    }

    /// Whether the request was sent to a name of this machine. A request without one comes from no
    /// browser.
    pub fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        if !self.checks_host {
            return Ok(());
        }
        let header = headers.get(HOST).map(|host| host.to_str().unwrap_or("?"));
        for host in uri.authority().map(Authority::as_str).into_iter().chain(header) {
            if !self.is_ours(host) {
                let message =
                    format!("the host is {:?}, wanted localhost or a name that the server allows", shown(host));
                return Err(ApiError::refused(StatusCode::FORBIDDEN, message).code("host_not_allowed"));
            }
        }
        Ok(())
    }

    fn is_ours(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let host = authority.host().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host == "localhost"
            || host.ends_with(".localhost")
            || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            || self.hosts.iter().any(|ours| ours == host || ours == address)
    }

    /// Whether a page of another site sends this. Reading is harmless: without headers that allow
    /// it, no browser shows the answer to the page.
    pub fn check_site(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        if method.is_safe() {
            return Ok(());
        }
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let (origin, host) = (text(ORIGIN), text(HOST));
        if origin.is_some_and(|origin| self.allows_origin(origin)) {
            return Ok(());
        }
        let is_same = |origin: &str| {
            let (_, authority) = origin.split_once("://").unwrap_or_default();
            host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
        };
        let is_foreign = match (text(SEC_FETCH_SITE), origin) {
            (Some("same-origin" | "none"), _) => false,
            (Some(_), _) => true,
            (None, Some(origin)) => !is_same(origin),
            (None, None) => false,
        };
        if !is_foreign {
            return Ok(());
        }
        let origin = shown(origin.unwrap_or("another site"));
        let message = format!("the request comes from a page of {origin:?}, wanted an origin that the server allows");
        Err(ApiError::refused(StatusCode::FORBIDDEN, message).code("origin_not_allowed"))
    }

    /// Whether pages of this origin were allowed.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == origin)
    }

    /// Whether the request has a key, as a bearer or by `x-api-key`.
    pub fn check_key(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let bearer = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).and_then(|value| {
            let (scheme, key) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
        });
        let key = bearer.or_else(|| headers.get(API_KEY).map(|value| value.as_bytes()));
        let is_known = key.is_some_and(|key| {
            // All of them, so that time tells nothing of which.
            self.keys.iter().fold(false, |known, ours| known | is_equal(ours, key))
        });
        if is_known {
            return Ok(());
        }
        let seen = if key.is_some() { "unknown" } else { "missing" };
        let message = format!("the API key is {seen}, wanted one of the server's in the header authorization");
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "authentication_error", message).code("invalid_api_key"))
    }
}

/// Compares in a time that depends on the lengths alone.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let differs = a.iter().zip(b).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    (a.len() == b.len()) & (differs == 0)
}

/// Whether an address is of this machine alone.
pub(crate) fn is_private(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn guard(options: Options) -> Guard {
        Guard::new(&options, &Listen::Tcp("127.0.0.1:8080".parse().unwrap()))
    }

    fn headers(rows: &[(HeaderName, &str)]) -> HeaderMap {
        rows.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn hosts_are_names_of_this_machine() {
        let options = Options { hosts: vec!["Box.lan".into()], ..Options::default() };
        let guard = guard(options);
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        let rows = [
            ("localhost", true),
            ("LOCALHOST:8080", true),
            ("localhost.", true),
            ("app.localhost:1", true),
            ("127.0.0.1", true),
            ("127.8.0.1:80", true),
            ("[::1]:8080", true),
            ("box.lan:8080", true),
            ("evil.example", false),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("192.168.1.5", false),
            ("", false),
            ("a b", false),
        ];
        let check = |host: &str| guard.check_host(&uri("/x"), &headers(&[(HOST, host)])).is_ok();
        let failed: Vec<_> = rows.iter().filter(|(host, wanted)| check(host) != *wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
        assert!(guard.check_host(&uri("/x"), &HeaderMap::new()).is_ok());
        let absolute = uri("http://evil.example/x");
        assert!(guard.check_host(&absolute, &headers(&[(HOST, "localhost")])).is_err());
        let open = Guard::new(&Options::default(), &Listen::Tcp("0.0.0.0:8080".parse().unwrap()));
        assert!(open.check_host(&uri("/x"), &headers(&[(HOST, "box.lan")])).is_ok());
    }

    #[test]
    fn pages_of_other_sites_send_nothing() {
        let guard = guard(Options { origins: vec!["http://localhost:3000".into()], ..Options::default() });
        let host = (HOST, "localhost:8080");
        let rows: [(&[(HeaderName, &str)], bool); 8] = [
            (&[], true),
            (&[(ORIGIN, "http://localhost:8080")], true),
            (&[(ORIGIN, "http://localhost:3000")], true),
            (&[(ORIGIN, "http://localhost:3001")], false),
            (&[(ORIGIN, "null")], false),
            (&[(SEC_FETCH_SITE, "cross-site")], false),
            (&[(SEC_FETCH_SITE, "same-site"), (ORIGIN, "http://localhost:8080")], false),
            (&[(SEC_FETCH_SITE, "same-origin"), (ORIGIN, "http://localhost:8080")], true),
        ];
        for (extra, wanted) in rows {
            let all: Vec<_> = extra.iter().cloned().chain([host.clone()]).collect();
            assert_eq!(guard.check_site(&Method::POST, &headers(&all)).is_ok(), wanted, "{extra:?}");
            assert!(guard.check_site(&Method::GET, &headers(&all)).is_ok());
        }
    }

    #[test]
    fn keys_come_as_bearers_or_by_their_header() {
        let guard = guard(Options { keys: vec!["one".into(), "second".into()], ..Options::default() });
        let rows: [(&[(HeaderName, &str)], bool); 8] = [
            (&[(AUTHORIZATION, "Bearer one")], true),
            (&[(AUTHORIZATION, "bearer second")], true),
            (&[(API_KEY, "second")], true),
            (&[(AUTHORIZATION, "Bearer on")], false),
            (&[(AUTHORIZATION, "Bearer ones")], false),
            (&[(AUTHORIZATION, "Basic one")], false),
            (&[(API_KEY, "")], false),
            (&[], false),
        ];
        for (rows, wanted) in rows {
            assert_eq!(guard.check_key(&headers(rows)).is_ok(), wanted, "{rows:?}");
        }
        assert!(super::Guard::new(&Options::default(), &Listen::Unix("x".into())).check_key(&HeaderMap::new()).is_ok());
    }
}

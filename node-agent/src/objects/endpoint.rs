//! Endpoints that requests name. A request must not make the agent call what only the agent can reach: other services of
//! its machine and network, and the metadata service that hands out the machine's credentials.

use super::SourceError;
use axum::http::Method;
use graphplane_core::sources::SourceEndpoint;
use http_body_util::{BodyExt, Limited};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    },
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    time::Duration,
};
use url::{Host, Url};

/// Longest wait for the addresses of a name.
const LOOKUP: Duration = Duration::from_secs(5);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest pause within an answer.
const PAUSE: Duration = Duration::from_secs(30);
/// Longest answer that is taken into memory as a whole: a page of a listing has a thousand keys, of 1 KiB at most.
const WHOLE: usize = 16 << 20;

/// Reads the endpoint of a request: scheme, host, port, and perhaps a path.
pub(super) fn parse(text: &str) -> Result<Url, SourceError> {
    let wrong = || {
        let shown: String = text.chars().take(100).collect();
        SourceError::Invalid(format!(
            "s3_credentials.endpoint_url: {shown:?} is not an endpoint; expected http://host:port or https://host:port"
        ))
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.host_str().is_some_and(|host| !host.is_empty());
    (plain && matches!(url.scheme(), "http" | "https"))
        .then_some(url)
        .ok_or_else(wrong)
}

/// Whether the node's operator named this endpoint: as the node's own, or for requests.
pub(super) fn is_known(url: &Url, own: Option<&str>, named: &[SourceEndpoint]) -> bool {
    let origin = url.origin();
    own.and_then(|own| Url::parse(own).ok())
        .is_some_and(|own| own.origin() == origin)
        || named.iter().any(|known| known.origin() == origin.ascii_serialization())
}

/// The way to an endpoint that a request names: to the addresses that were found to be public, and to nothing else. No
/// redirect is followed, and the name is not looked up again: it could lead elsewhere by then.
#[derive(Clone, Debug)]
pub(super) struct PublicOnly {
    addresses: Vec<IpAddr>,
}

impl PublicOnly {
    /// Looks the endpoint's host up, and refuses it unless all of its addresses are public.
    pub(super) async fn check(url: &Url) -> Result<Self, SourceError> {
        let unknown = |why: &dyn std::fmt::Display| {
            SourceError::Invalid(format!(
                "s3_credentials.endpoint_url: {url}: its host cannot be found: {why}"
            ))
        };
        let addresses: Vec<IpAddr> = match url.host() {
            Some(Host::Ipv4(ip)) => vec![IpAddr::V4(ip)],
            Some(Host::Ipv6(ip)) => vec![IpAddr::V6(ip)],
            Some(Host::Domain(name)) => {
                let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((name, 0)))
                    .await
                    .map_err(|late| unknown(&late))?
                    .map_err(|error| unknown(&error))?;
                found.map(|address| address.ip()).collect()
            }
            None => Vec::new(),
        };
        if addresses.is_empty() || !addresses.iter().copied().all(is_public) {
            return Err(SourceError::Forbidden(format!(
                "s3_credentials.endpoint_url: {url} is not a public address; leave the field out for the node's own \
                 endpoint, or have this one named with --source-endpoint"
            )));
        }
        Ok(Self { addresses })
    }
}

/// Every name leads to the addresses that were checked.
impl Resolve for PublicOnly {
    fn resolve(&self, _: Name) -> Resolving {
        // Port 0 stands for the port of the URL.
        let sockets: Vec<SocketAddr> = self.addresses.iter().map(|ip| SocketAddr::new(*ip, 0)).collect();
        let found: Addrs = Box::new(sockets.into_iter());
        Box::pin(std::future::ready(Ok(found)))
    }
}

impl HttpConnector for PublicOnly {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        // A proxy would look the name up by itself, and reach what it can reach.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(self.clone())
            .http1_only()
            // Sizes are those of the objects as they lie there.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(CONNECT)
            .read_timeout(PAUSE)
            .build()
            .map_err(|source| object_store::Error::Generic {
                store: "S3",
                source: Box::new(source),
            })?;
        Ok(HttpClient::new(Bounded(client)))
    }
}

/// A client whose answers do not fill the memory. The store's library takes in listings and errors as a whole, and makes
/// room for what their headers announce; objects it passes on in pieces, which are counted where they are written.
#[derive(Debug)]
struct Bounded(reqwest::Client);

impl HttpService for Bounded {
    fn call<'life0, 'async_trait>(
        &'life0 self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        // What is asked about a bucket stands in the query.
        let of_object = request.method() == Method::GET && request.uri().query().is_none();
        Box::pin(async move {
            let answer = HttpService::call(&self.0, request).await?;
            if of_object && answer.status().is_success() {
                return Ok(answer);
            }
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, WHOLE);
            let body = body.map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error));
            Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
        })
    }
}

/// Whether an address is one of the public internet. What is not known to be is not.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let special = match ip.octets() {
        // This network, shared addresses of carriers, protocol assignments, benchmarks, multicast and reserved.
        [0, ..] | [192, 0, 0, _] | [198, 18..=19, ..] | [224..=255, ..] => true,
        [100, second, ..] => (64..128).contains(&second),
        _ => false,
    };
    !(special || ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    if let Some(ip) = ip.to_ipv4_mapped() {
        return is_public_v4(ip);
    }
    let [first, second, third, fourth, fifth, sixth, ..] = ip.segments();
    // Behind the usual prefix of NAT64 is an address of the other family.
    if (first, second, third, fourth, fifth, sixth) == (0x64, 0xff9b, 0, 0, 0, 0) {
        let [.., a, b, c, d] = ip.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Global addresses are in 2000::/3; protocol assignments with Teredo, documentation and 6to4 are in it, too.
    let global = (0x2000..0x4000).contains(&first);
    let special = match first {
        0x2001 => second < 0x200 || second == 0xdb8,
        0x2002 => true,
        0x3fff => second < 0x1000,
        _ => false,
    };
    global && !special
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_public_addresses_are_public() {
        for public in [
            "1.1.1.1",
            "52.216.1.1",
            "99.255.1.1",
            "100.128.0.1",
            "2600:1f18::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn an_endpoint_is_a_scheme_and_a_host() {
        for good in [
            "http://host",
            "https://host:9000/",
            "https://host/path",
            "http://[2600::1]:1",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "host:9000",
            "ftp://host",
            "file:///etc",
            "http://",
            "http://u@host",
            "http://u:p@host",
            "http://host?x=",
            "http://host#x",
            "http://ho st",
        ] {
            assert!(matches!(parse(bad), Err(SourceError::Invalid(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn other_spellings_of_an_address_are_the_same_address() {
        for hidden in [
            "http://127.0.0.1:8001",
            "http://127.1",
            "http://2130706433",
            "http://0x7f.1",
            "http://0177.0.0.1",
            "http://0",
            "http://[::ffff:7f00:1]",
            "http://localhost:9",
            "http://LOCALHOST",
            "http://169.254.169.254/latest",
            "http://%31%32%37.0.0.1",
        ] {
            let refused = PublicOnly::check(&parse(hidden).unwrap()).await;
            assert!(
                matches!(refused, Err(SourceError::Forbidden(_))),
                "{hidden}: {refused:?}"
            );
        }
        PublicOnly::check(&parse("https://1.1.1.1").unwrap()).await.unwrap();
    }

    /// Answers every request with a redirect to itself, and says of which hosts it was asked.
    async fn redirecting() -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, seen) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap() > 0 {}
                asked.send(String::from_utf8(request).unwrap()).unwrap();
                let answer = format!(
                    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/secret\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (port, seen)
    }

    #[tokio::test]
    async fn the_way_leads_to_the_addresses_that_were_checked_and_no_further() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (port, mut seen) = redirecting().await;
        let way = PublicOnly {
            addresses: vec!["127.0.0.1".parse().unwrap()],
        };
        let client = way.connect(&ClientOptions::new()).unwrap();
        let request = axum::http::Request::get(format!("http://bucket.example:{port}/lake/x"))
            .body(object_store::client::HttpRequestBody::empty())
            .unwrap();
        let answer = client.execute(request).await.unwrap();
        assert_eq!(answer.status(), 302);
        assert!(seen.recv().await.unwrap().starts_with("GET /lake/x "));
        assert!(seen.try_recv().is_err(), "a redirect was followed");
    }

    /// Answers every request with more than is taken, whose length it claims to be endless.
    async fn endless(status: &'static str) -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap() > 0 {}
                let length = i64::MAX;
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
                let mut sent = stream.write_all(head.as_bytes()).await;
                let mut pieces = 0;
                while sent.is_ok() && pieces <= WHOLE >> 16 {
                    sent = stream.write_all(&[b' '; 1 << 16]).await;
                    pieces += 1;
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn an_endless_listing_is_not_taken_in() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let way = PublicOnly {
            addresses: vec!["127.0.0.1".parse().unwrap()],
        };
        let client = way.connect(&ClientOptions::new()).unwrap();
        for (status, path) in [("200 OK", "lake?list-type=2"), ("404 Not Found", "lake/x")] {
            let port = endless(status).await;
            let request = axum::http::Request::get(format!("http://bucket.example:{port}/{path}"))
                .body(object_store::client::HttpRequestBody::empty())
                .unwrap();
            let answer = client.execute(request).await.unwrap();
            let error = answer.into_body().bytes().await.unwrap_err();
            assert_eq!(error.kind(), HttpErrorKind::Decode, "{path}: {error}");
        }
    }

    #[test]
    fn what_the_operator_named_is_known() {
        let named: Vec<SourceEndpoint> = vec!["https://MinIO.internal:443".parse().unwrap()];
        for (url, known) in [
            ("https://minio.internal/", true),
            ("https://minio.internal:443/path", true),
            ("http://minio.internal", false),
            ("https://minio.internal:9000", false),
            ("https://minio.internal.evil.example", false),
            ("http://127.0.0.1:4566/", true),
            ("http://127.0.0.1:4567", false),
        ] {
            let url = parse(url).unwrap();
            assert_eq!(is_known(&url, Some("http://127.0.0.1:4566"), &named), known, "{url}");
        }
        assert!(!is_known(&parse("http://x").unwrap(), None, &[]));
        assert!(!is_known(&parse("http://x").unwrap(), Some("nonsense"), &[]));
    }

    proptest! {
        /// Whichever way it is wrapped, an address that is not public stays so.
        #[test]
        fn wrapping_does_not_make_an_address_public(bits in any::<u32>()) {
            let ip = Ipv4Addr::from(bits);
            let [a, b, c, d] = ip.octets().map(u16::from);
            let wrapped = [
                ip.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, (a << 8) | b, (c << 8) | d),
            ];
            for wrapped in wrapped {
                prop_assert_eq!(is_public_v6(wrapped), is_public_v4(ip));
            }
            prop_assert!(!is_public_v6(ip.to_ipv6_compatible()));
        }
    }
}

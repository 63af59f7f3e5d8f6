//! Which URLs and addresses other people may send us to.
//!
//! One policy for inputs and webhooks. The edge judges URLs (a Worker cannot resolve names); the node judges the URL of
//! every hop and then every address that its name resolves to, and connects only to addresses that were judged.
//! Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries; RFC 6761 and RFC 6762 for names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use url::{Host, Url};

/// What is allowed beyond public https.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Permit loopback (127.0.0.0/8, ::1, `localhost`), over http too. For development and tests.
    pub allow_loopback: bool,
}

/// Why a URL or an address is refused. The text says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// Not parsed as an absolute URL with a host.
    #[error("must be an absolute https URL, its host in ASCII (`xn--…` for other letters)")]
    NotAUrl,
    /// Neither https, nor http to an allowed loopback address.
    #[error("must be https")]
    NotHttps,
    /// `user:password@host`.
    #[error("must not carry a user name or password; send credentials in a header instead")]
    Credentials,
    /// An address instead of a name.
    #[error("must name a host, not an IP address")]
    Literal,
    /// An address that is not publicly reachable.
    #[error("must not point to a private, loopback, link-local or otherwise reserved address")]
    Private,
    /// A name that only a local network knows.
    #[error("must name a public host, not a local name")]
    LocalName,
}

/// Judges a URL by its text alone.
pub fn check_url(text: &str, policy: Policy) -> Result<Url, Refused> {
    let url = Url::parse(text).map_err(|_| Refused::NotAUrl)?;
    let loopback = match url.host().ok_or(Refused::NotAUrl)? {
        Host::Domain(name) => check_name(name, policy)?,
        Host::Ipv4(address) => check_literal(address.into(), policy)?,
        Host::Ipv6(address) => check_literal(address.into(), policy)?,
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        _ => return Err(Refused::NotHttps),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refused::Credentials);
    }
    Ok(url)
}

/// Judges an address that a name resolved to.
pub fn check_address(address: IpAddr, policy: Policy) -> Result<(), Refused> {
    let fine = is_public(address) || (policy.allow_loopback && address.is_loopback());
    if fine { Ok(()) } else { Err(Refused::Private) }
}

/// Whether the address is globally reachable unicast. IPv4 inside IPv6 (mapped, NAT64, 6to4, Teredo) is not: no public
/// host needs to be reached that way, and each form can carry a private address.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !V4_RESERVED.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => V6_GLOBAL.contains(&address) && !V6_RESERVED.iter().any(|net| net.contains(&address)),
    }
}

/// The name under which requests of one client are counted: an IPv4 address, or the /64 of an IPv6 address, because a
/// client usually has all of it. A text that is no address stands for itself.
pub fn counted_as(address: &str) -> String {
    match address.trim().parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.to_string(),
        Ok(IpAddr::V6(address)) => Ipv6Net::new_assert(address, 64).trunc().to_string(),
        Err(_) => address.to_owned(),
    }
}

/// Whether a literal is an allowed loopback address; every other literal is refused.
fn check_literal(address: IpAddr, policy: Policy) -> Result<bool, Refused> {
    if policy.allow_loopback && address.is_loopback() {
        Ok(true)
    } else if is_public(address) {
        Err(Refused::Literal)
    } else {
        Err(Refused::Private)
    }
}

/// Whether a name is an allowed loopback name; local names are refused.
fn check_name(name: &str, policy: Policy) -> Result<bool, Refused> {
    let name = name.trim_end_matches('.');
    if name == "localhost" && policy.allow_loopback {
        return Ok(true);
    }
    let (_, last) = name.rsplit_once('.').ok_or(Refused::LocalName)?;
    if LOCAL_DOMAINS.contains(&last) || name.ends_with(".home.arpa") {
        return Err(Refused::LocalName);
    }
    Ok(false)
}

/// Top-level names that never lead to a public host.
const LOCAL_DOMAINS: [&str; 9] =
    ["local", "localhost", "internal", "intranet", "lan", "home", "corp", "private", "localdomain"];

const fn v4(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

const fn v6(a: u16, b: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

const V4_RESERVED: [Ipv4Net; 15] = [
    v4(0, 0, 0, 8),       // this network
    v4(10, 0, 0, 8),      // private
    v4(100, 64, 0, 10),   // carrier-grade NAT; some clouds' metadata
    v4(127, 0, 0, 8),     // loopback
    v4(169, 254, 0, 16),  // link-local, metadata
    v4(172, 16, 0, 12),   // private
    v4(192, 0, 0, 24),    // protocol assignments
    v4(192, 0, 2, 24),    // documentation
    v4(192, 88, 99, 24),  // 6to4 relays
    v4(192, 168, 0, 16),  // private
    v4(198, 18, 0, 15),   // benchmarking
    v4(198, 51, 100, 24), // documentation
    v4(203, 0, 113, 24),  // documentation
    v4(224, 0, 0, 4),     // multicast
    v4(240, 0, 0, 4),     // reserved, broadcast
];

/// All of IPv6 that is assigned for global unicast.
const V6_GLOBAL: Ipv6Net = v6(0x2000, 0, 3);

const V6_RESERVED: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),      // protocol assignments, Teredo, ORCHID
    v6(0x2001, 0x0db8, 32), // documentation
    v6(0x2002, 0, 16),      // 6to4
    v6(0x3fff, 0, 20),      // documentation
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STRICT: Policy = Policy { allow_loopback: false };
    const LOOPBACK: Policy = Policy { allow_loopback: true };

    #[test]
    fn clients_are_counted_by_address_and_those_of_ipv6_by_network() {
        let table = [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
            ("nobody", "nobody"),
            ("", ""),
        ];
        for (address, expected) in table {
            assert_eq!(counted_as(address), expected, "{address}");
        }
    }

    #[test]
    fn urls_are_judged_as_the_table_says() {
        use Refused::{Credentials, Literal, LocalName, NotAUrl, NotHttps, Private};
        let table = [
            ("https://example.com/a.mp4", None, None),
            ("https://example.com.:8443/a", None, None),
            ("http://example.com/a.mp4", Some(NotHttps), Some(NotHttps)),
            ("ftp://example.com/a", Some(NotHttps), Some(NotHttps)),
            ("example.com/a.mp4", Some(NotAUrl), Some(NotAUrl)),
            ("file:///etc/passwd", Some(NotAUrl), Some(NotAUrl)),
            ("", Some(NotAUrl), Some(NotAUrl)),
            ("https://user:secret@example.com/", Some(Credentials), Some(Credentials)),
            ("https://user@example.com/", Some(Credentials), Some(Credentials)),
            ("https://93.184.216.34/", Some(Literal), Some(Literal)),
            ("https://[2606:2800:220:1::1]/", Some(Literal), Some(Literal)),
            ("https://10.0.0.1/", Some(Private), Some(Private)),
            ("https://169.254.169.254/latest", Some(Private), Some(Private)),
            ("https://[fe80::1]/", Some(Private), Some(Private)),
            ("https://[fd00::1]/", Some(Private), Some(Private)),
            ("https://[::ffff:127.0.0.1]/", Some(Private), Some(Private)),
            ("https://[::ffff:10.0.0.1]/", Some(Private), Some(Private)),
            ("https://[64:ff9b::8.8.8.8]/", Some(Private), Some(Private)),
            ("https://[2002:7f00:1::]/", Some(Private), Some(Private)),
            ("http://127.0.0.1:8080/a", Some(Private), None),
            ("https://127.8.9.1/a", Some(Private), None),
            ("http://[::1]:80/a", Some(Private), None),
            ("http://2130706433/", Some(Private), None),
            ("http://0x7f.1/", Some(Private), None),
            ("http://017700000001/", Some(Private), None),
            ("http://localhost:9/a", Some(LocalName), None),
            ("http://localhost./a", Some(LocalName), None),
            ("https://LOCALHOST/a", Some(LocalName), None),
            ("https://a.localhost/", Some(LocalName), Some(LocalName)),
            ("https://intranet/", Some(LocalName), Some(LocalName)),
            ("https://intranet../", Some(LocalName), Some(LocalName)),
            ("https://printer.local/", Some(LocalName), Some(LocalName)),
            ("https://metadata.google.internal/", Some(LocalName), Some(LocalName)),
            ("https://router.home.arpa/", Some(LocalName), Some(LocalName)),
        ];
        for (url, strict, loopback) in table {
            assert_eq!(check_url(url, STRICT).err(), strict, "{url}, strict");
            assert_eq!(check_url(url, LOOPBACK).err(), loopback, "{url}, loopback allowed");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_inside_ipv6_is_never_public(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for wrapped in [
                v4.to_ipv6_mapped(),
                v4.to_ipv6_compatible(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0, 1),
            ] {
                prop_assert!(!is_public(wrapped.into()), "{wrapped}");
            }
        }

        #[test]
        fn what_the_standard_library_calls_special_is_never_public(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_broadcast()
                || v4.is_documentation() || v4.is_unspecified() || v4.is_multicast();
            prop_assert!(!(special && is_public(v4.into())), "{v4}");
        }

        #[test]
        fn allowing_loopback_allows_nothing_else(bits: u128) {
            let v6 = IpAddr::V6(Ipv6Addr::from(bits));
            if !v6.is_loopback() {
                prop_assert_eq!(check_address(v6, STRICT), check_address(v6, LOOPBACK));
            }
        }
    }
}

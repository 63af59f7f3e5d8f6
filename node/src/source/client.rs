//! HTTP clients for media, and the resolver that judges addresses.

use std::{net::SocketAddr, time::Duration};

use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use xora_shared::net::{Policy, check_address};

use super::fault::{RefusedAddress, Unresolved};

const CONNECT: Duration = Duration::from_secs(10);
const USER_AGENT: &str = concat!("xora-node/", env!("CARGO_PKG_VERSION"));

/// A client for inputs: it connects to judged addresses only. Addresses in URLs do not pass the resolver; whoever uses
/// this judges each URL before.
pub fn judged(policy: Policy) -> reqwest::Result<Client> {
    plain().dns_resolver(Judge(policy)).build()
}

/// A client for the edge and its storage.
pub fn trusted() -> reqwest::Result<Client> {
    plain().build()
}

fn plain() -> reqwest::ClientBuilder {
    // The process's cryptography, for the wake-up socket as well. Only the first call does something.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .tcp_nodelay(true)
        .pool_max_idle_per_host(8)
}

/// Resolves names and refuses those of which any address is against the policy: an attacker who mixes public and
/// private addresses must not get a choice.
struct Judge(Policy);

impl Resolve for Judge {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| Unresolved)?;
            let addresses: Vec<SocketAddr> = found.collect();
            judge(&addresses, policy)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn judge(addresses: &[SocketAddr], policy: Policy) -> Result<(), RefusedAddress> {
    addresses.iter().try_for_each(|address| check_address(address.ip(), policy).map_err(RefusedAddress))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fault::SourceFault;
    use xora_shared::net::Refused;

    #[test]
    fn one_private_address_among_public_ones_refuses_the_name() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("address")).collect::<Vec<_>>();
        let strict = Policy { allow_loopback: false };
        assert!(judge(&addresses(&["93.184.216.34:0", "[2606:2800:220:1::1]:0"]), strict).is_ok());
        assert!(judge(&addresses(&["93.184.216.34:0", "10.0.0.1:0"]), strict).is_err());
        assert!(judge(&addresses(&["127.0.0.1:0"]), strict).is_err());
        assert!(judge(&addresses(&["127.0.0.1:0"]), Policy { allow_loopback: true }).is_ok());
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_loopback_is_refused_before_any_connection() {
        let client = judged(Policy { allow_loopback: false }).expect("client");
        let error = client.get("https://localhost:9/").send().await.expect_err("refused");
        assert_eq!(SourceFault::from(error), SourceFault::Refused(Refused::Private));
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_told_apart_from_a_refused_connection() {
        let client = judged(Policy { allow_loopback: true }).expect("client");
        let fault = async |url| SourceFault::from(client.get(url).send().await.expect_err("fails")).trouble();
        assert_eq!(fault("https://does-not-exist.invalid/").await, Some(super::super::Trouble::Name));
        assert_eq!(fault("http://127.0.0.1:1/").await, Some(super::super::Trouble::Connect));
    }
}

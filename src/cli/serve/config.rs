//! The [`Config`] of a server that follows from the options.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};

use intake::access::{Networks, Policy, Quota};
use intake::net::tls::Asks;
use intake::proto::{NamePolicy, Rules, Web};
use intake::sandbox::{Sandbox, User};
use intake::server::config::{Config, Limits, Tls, Udp};
use intake::server::page;
use intake::server::story::EventsTo;

use super::options::{Echo, Serve, TlsUse};
use crate::cli::address::listening;
use crate::cli::units::{Count, Size, Span};

/// What is looked up once, at the start: it cannot change later, and the sandbox forbids to look it up again.
#[derive(Clone, Debug)]
pub struct Places {
    listen: Vec<SocketAddr>,
    udp: Udp,
    metrics: Option<SocketAddr>,
    user: Option<User>,
}

impl Serve {
    /// How to speak TLS, if a certificate is given.
    fn tls(&self) -> Result<Option<Tls>, String> {
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let clients = self.tls_client_ca.clone().map(|file| (file, self.tls_client));
        let need_certificate = matches!(clients, Some((_, Asks::Requires)));
        if need_certificate && self.tls_use == Some(TlsUse::Also) {
            let words =
                "--tls also lets clients in that have no certificate: choose --tls required or --tls-client optional";
            return Err(words.into());
        }
        let is_required = need_certificate || self.tls_use == Some(TlsUse::Required);
        let (certificate, key, max_handshakes) = (certificate.clone(), key.clone(), self.max_handshakes.get());
        let tls = Tls { certificate, key, clients, is_required, max_handshakes };
        Ok((self.tls_use != Some(TlsUse::Off)).then_some(tls))
    }

    /// Looks up what has to be looked up.
    ///
    /// # Errors
    /// What is not found, in words.
    pub fn places(&self) -> Result<Places, String> {
        let udp = match &self.udp {
            None => Udp::FollowTcp,
            Some(Echo::Off) => Udp::Off,
            Some(Echo::At(address)) => Udp::At(listening(std::slice::from_ref(address))?),
        };
        // A name may stand for several addresses, and one is enough.
        let metrics = self.metrics.as_ref().map(|address| listening(std::slice::from_ref(address))).transpose()?;
        Ok(Places {
            listen: listening(&self.listen)?,
            udp,
            metrics: metrics.and_then(|all| all.first().copied()),
            user: self.user()?,
        })
    }

    /// The user that the server becomes.
    ///
    /// # Errors
    /// In words: there is none of this name, or it is root.
    pub fn user(&self) -> Result<Option<User>, String> {
        let look_up = |name: &String| name.parse().map_err(|words| format!("--user {name}: {words}"));
        self.user.as_ref().map(look_up).transpose()
    }

    /// The configuration.
    ///
    /// # Errors
    /// What is wrong with the options, in words.
    pub fn config(self) -> Result<Config, String> {
        let places = self.places()?;
        self.config_at(places)
    }

    /// The configuration, with what was looked up.
    ///
    /// # Errors
    /// What is wrong with the options, in words.
    pub fn config_at(self, Places { listen, udp, metrics, user }: Places) -> Result<Config, String> {
        let tls = self.tls()?;
        let tls_files = tls.iter().flat_map(Tls::files);
        let reread = self.token_file.iter().chain(&self.config).cloned().chain(tls_files).collect();
        let rewrite = match &self.events {
            Some(EventsTo::File(file)) => vec![file.clone()],
            _ => Vec::new(),
        };
        let limits = Limits {
            header_timeout: self.header_timeout.0.map(|Span(time)| time),
            idle_timeout: self.idle_timeout.0.map(|Span(time)| time),
            min_rate: self.min_rate.0.map(|Size(bytes)| bytes),
            linger_timeout: self.linger_timeout.0,
            ok_grace: self.ok_grace.0.map(|Span(time)| time),
            name_quiet: self.name_quiet.0,
        };
        Ok(Config {
            listen,
            udp,
            metrics,
            events: self.events,
            directory: self.dir,
            sync: self.sync,
            queue: self.queue,
            partial_ttl: self.partial_ttl.0,
            min_free: self.min_free.map(|Size(bytes)| bytes),
            rules: Rules {
                names: NamePolicy { portable: self.portable_names },
                on_exists: self.on_exists,
                require_size: self.require_size,
                max_file_size: self.max_file_size.0.map(|Size(bytes)| bytes),
                web: Web { hosts: self.http_host, origins: self.allow_origin, page: (!self.no_page).then(page) },
                ..Rules::default()
            },
            policy: Policy {
                allow: Networks::new(self.allow),
                per_source: self.per_source.map(NonZeroU32::get),
                source_quota: Quota {
                    bytes: self.per_source_day.map(|Size(bytes)| bytes),
                    uploads: self.per_source_uploads.map(NonZeroU32::get),
                },
                plain_tokens: self.plain_tokens,
                proxies: Networks::new(self.proxy_from),
            },
            proxy_unsized: self.proxy_unsized,
            token_file: self.token_file.clone(),
            limits,
            max_connections: self.max_connections.map(NonZeroUsize::get),
            shutdown_timeout: self.shutdown_timeout.0,
            reuse_port: self.reuse_port,
            user,
            sandbox: Sandbox { mode: self.sandbox, reread, rewrite, removed: self.admin.iter().cloned().collect() },
            admin: self.admin,
            tls,
            udp_rate: self.udp_rate.0.map(|Count(rate)| rate),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use clap::error::ErrorKind;

    use intake::proto::OnExists;
    use intake::sandbox::Mode;
    use intake::server::config::Durability;

    use super::*;
    use crate::cli::serve::options::tests::parse;

    fn config(typed: &str) -> Config {
        parse(typed).unwrap().config().unwrap()
    }

    #[test]
    fn without_options_the_configuration_is_the_default() {
        let sandbox = Sandbox { mode: Mode::Auto, ..Sandbox::default() };
        assert_eq!(format!("{:?}", config("")), format!("{:?}", Config { sandbox, ..Config::default() }));
    }

    #[test]
    fn every_option_reaches_the_configuration() {
        let Config {
            listen,
            udp,
            metrics,
            events,
            admin,
            directory,
            sync,
            queue,
            min_free,
            partial_ttl,
            tls,
            rules,
            policy,
            proxy_unsized,
            token_file,
            limits,
            max_connections,
            shutdown_timeout,
            reuse_port,
            user,
            sandbox,
            udp_rate,
        } = config(
            "--listen 127.0.0.1:1 --listen [::1]:2 --udp 127.0.0.2:3 --dir /d --on-exists replace --max-connections 7 \
             --max-file-size 8M --header-timeout 9s --idle-timeout 10m --min-rate 11k --linger-timeout 12s \
             --shutdown-timeout 13s --ok-grace 14ms --name-quiet 15ms --udp-rate 16 --portable-names --require-size --sync none \
             --min-free 17k --partial-ttl 18h --reuse-port --no-page --http-host drop.example --http-host b \
             --allow-origin https://app.example:19 --token-file /t --plain-tokens --allow 192.0.2.0/24 --allow ::1 \
             --per-source 20 --per-source-day 21k --per-source-uploads 22 --user 20 --sandbox require --tls-cert /c \
             --events unix:/e --metrics 127.0.0.1:23 --tls-key /k --tls required --tls-client-ca /ca --tls-client optional \
             --max-handshakes 20 --queue --proxy-from 198.51.100.24 --proxy-unsized --admin unix:/a",
        );
        assert_eq!(events, Some(EventsTo::Unix("/e".into())));
        assert_eq!((user, sandbox.mode), (Some("20".parse().unwrap()), Mode::Require));
        assert_eq!((token_file, policy.plain_tokens), (Some(PathBuf::from("/t")), true));
        assert!(policy.proxies.contain("198.51.100.24".parse().unwrap()) && proxy_unsized);
        assert_eq!((policy.per_source, policy.source_quota.uploads), (Some(20), Some(22)));
        assert_eq!(policy.source_quota.bytes, Some(21 << 10));
        let allows = |ip: &str| policy.allow.allows(ip.parse().unwrap());
        assert_eq!(["192.0.2.9", "::1", "127.0.0.1"].map(allows), [true, true, false]);
        let clients = Some(("/ca".into(), Asks::Takes));
        let (certificate, key) = ("/c".into(), "/k".into());
        assert_eq!(tls, Some(Tls { certificate, key, clients, is_required: true, max_handshakes: 20 }));
        let Web { hosts, origins, page } = rules.web;
        assert_eq!((hosts, origins), (vec!["drop.example".into(), "b".into()], vec!["https://app.example:19".into()]));
        assert!(page.is_none());
        assert_eq!(listen, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
        assert_eq!(udp, Udp::At(vec!["127.0.0.2:3".parse().unwrap()]));
        assert_eq!(metrics, Some("127.0.0.1:23".parse().unwrap()));
        assert_eq!((admin, sandbox.removed), (Some("/a".into()), vec![PathBuf::from("/a")]));
        assert_eq!((directory, rules.on_exists), (PathBuf::from("/d"), OnExists::Replace));
        assert_eq!((min_free, partial_ttl), (Some(17 << 10), Duration::from_secs(18 * 3600)));
        assert!(rules.names.portable && rules.require_size && reuse_port && queue && sync == Durability::None);
        assert_eq!((max_connections, udp_rate, shutdown_timeout), (Some(7), Some(16), Duration::from_secs(13)));
        assert_eq!((rules.max_file_size, limits.min_rate), (Some(8 << 20), Some(11 << 10)));
        assert_eq!(limits.header_timeout, Some(Duration::from_secs(9)));
        assert_eq!(limits.idle_timeout, Some(Duration::from_secs(600)));
        assert_eq!(limits.linger_timeout, Duration::from_secs(12));
        assert_eq!((limits.ok_grace, limits.name_quiet), (Some(Duration::from_millis(14)), Duration::from_millis(15)));
    }

    #[test]
    fn tls_is_spoken_where_there_is_a_certificate_and_needed_where_clients_need_one() {
        let tls = |typed: &str| config(&format!("--tls-cert c --tls-key k {typed}")).tls;
        assert_eq!(tls("--tls off"), None);
        let required = |typed| tls(typed).map(|tls| (tls.is_required, tls.clients.map(|(_, asks)| asks)));
        assert_eq!(required(""), Some((false, None)));
        assert_eq!(required("--tls required"), Some((true, None)));
        assert_eq!(required("--tls-client-ca ca"), Some((true, Some(Asks::Requires))));
        assert_eq!(required("--tls-client-ca ca --tls-client optional"), Some((false, Some(Asks::Takes))));
        let words = parse("--tls-cert c --tls-key k --tls also --tls-client-ca ca").unwrap().config().unwrap_err();
        assert!(words.contains("--tls required"), "{words}");
        for typed in ["--tls-cert c", "--tls-key k", "--tls required", "--tls-client-ca ca"] {
            assert_eq!(parse(typed).unwrap_err().kind(), ErrorKind::MissingRequiredArgument, "{typed}");
        }
    }

    #[test]
    fn off_switches_a_limit_off() {
        let Config { udp, rules, limits, udp_rate, .. } = config(
            "--udp off --max-file-size off --header-timeout off --idle-timeout off --min-rate off --ok-grace off \
             --udp-rate off",
        );
        assert_eq!((udp, udp_rate, rules.max_file_size, limits.min_rate), (Udp::Off, None, None, None));
        assert_eq!((limits.header_timeout, limits.idle_timeout, limits.ok_grace), (None, None, None));
    }
}

//! Who may write, and how much: addresses, tokens, and what is counted of each.
//!
//! ```text
//!   accept -----> screen ----> allowed networks, connections of this source
//!   a head -----> judge -----> its token, failures of this source  ----> a Token, or a refusal
//!   an upload --> begin -----> what this token and this source may still send today --> a Charge
//!                 grow         for content of unknown size, as it comes
//!                 give_back    the upload has failed
//! ```
//!
//! What is counted is in tables that strangers cannot enlarge ([`crate::reactor::Sources`]): as many rows as there are
//! tokens, as many sources as there are connections, or a fixed number.
//!
//! Knows no socket, no file and no clock: the server asks, and passes in the address and the time.

mod charge;
mod networks;
mod quota;
mod tokens;
mod who;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use charge::Charge;
pub use networks::{Network, Networks};
pub use quota::Quota;
use quota::{Day, Short};
pub use tokens::{TOKEN_FILE_MAX_BYTES, Token, TokenFileError, Tokens, check_name};
pub use who::Who;

use crate::proto::{Code, Credential, Refusal};
use crate::reactor::{Moment, Source, Sources};

/// The sources whose failures or days are counted at once. Far more than fail or send at a time on one server; the two tables
/// take 400 KiB.
const SOURCES: usize = 4096;
/// How many wrong tokens a source may show in a minute. A person mistypes a few times; a script that tries one after the other
/// is slowed down, although no number of tries finds 256 random bits.
const FAILURES_MAX: u32 = 10;
/// The time in which they count, and for which the source then has to wait.
const FAILURES_WITHIN: Duration = Duration::from_secs(60);
/// When a client should try again that has too many connections: nobody knows when one of them ends.
const CONNECTIONS_RETRY_SECONDS: u32 = 5;

/// What an operator decides about who may write.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The networks that clients may come from.
    pub allow: Networks,
    /// The most connections of one source at once.
    pub per_source: Option<u32>,
    /// What one source may send in a day.
    pub source_quota: Quota,
    /// Tokens are taken on connections that others can read along.
    pub plain_tokens: bool,
    /// The networks of proxies. Their connections begin with the address of the client, and are believed.
    pub proxies: Networks,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The address of the client.
    pub address: IpAddr,
    /// That is the address of a proxy, which has not told where the client is.
    pub is_hidden: bool,
    /// Nobody can read along: the connection is encrypted.
    pub is_secure: bool,
    /// Its dialect has a place for a token.
    pub can_show: bool,
}

/// Decides who may write, and counts.
#[derive(Debug)]
pub struct Access {
    policy: Policy,
    /// `None`: no token is needed.
    tokens: Option<Tokens>,
    /// Wrong tokens.
    failures: Sources<Failures>,
    /// Only where the policy has a limit, and so no more entries than connections.
    connected: BTreeMap<Source, u32>,
    days_of_sources: Sources<Day>,
    /// By the names of tokens that have a limit.
    days_of_names: BTreeMap<Who, Day>,
    limited: Limited,
}

/// How often a limit has refused something since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    /// The connections of one source.
    pub connections: u64,
    /// The wrong tokens of one source.
    pub wrong_tokens: u64,
    /// The day of a source.
    pub source_day: u64,
    /// The day of a token.
    pub token_day: u64,
}

/// The wrong tokens that a source has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    /// When they stop to count.
    until: Moment,
}

impl Access {
    /// Everybody may write whom `policy` lets in.
    pub fn new(policy: Policy) -> Self {
        Self {
            // What is not needed takes no room.
            failures: Sources::new(0),
            days_of_sources: Sources::new(days(&policy)),
            policy,
            tokens: None,
            connected: BTreeMap::new(),
            days_of_names: BTreeMap::new(),
            limited: Limited::default(),
        }
    }

    /// How often its limits have refused something.
    pub fn limited(&self) -> Limited {
        self.limited
    }

    /// Whether a client has to show a token.
    pub fn needs_token(&self) -> bool {
        self.tokens.is_some()
    }

    /// From now on a client has to show one of these tokens. What was counted stays, and uploads that have begun may finish.
    pub fn replace_tokens(&mut self, tokens: Tokens) {
        if self.tokens.is_none() {
            self.failures = Sources::new(SOURCES);
        }
        self.days_of_names.retain(|who, _| tokens.iter().any(|token| token.who() == who));
        self.tokens = Some(tokens);
    }

    /// Another policy counts from now on. What sources have used of their day still counts.
    ///
    /// Connections of a source are counted only under a policy that limits them, so that cannot be switched on or off.
    pub fn replace_policy(&mut self, policy: Policy) {
        if self.policy.source_quota.is_unlimited() {
            self.days_of_sources = Sources::new(days(&policy));
        }
        self.policy = policy;
    }

    /// Whether a proxy connects from `address`. It is not a client, so nothing is limited there.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.policy.proxies.contain(address)
    }

    /// Whether a client at `address` may connect. If so, it counts from now on until [`Access::leave`].
    ///
    /// # Errors
    /// 403 for an address that is not allowed, 429 for too many connections of one source.
    pub fn enter(&mut self, address: IpAddr) -> Result<(), Refusal> {
        if !self.policy.allow.allows(address) {
            return Err(Refusal::new(Code::FORBIDDEN, "your address may not send here; the operator can --allow it"));
        }
        let Some(max) = self.policy.per_source else { return Ok(()) };
        let count = self.connected.entry(Source::of(address)).or_default();
        if *count >= max {
            self.limited.connections += 1;
            let words = format!("your address has {max} connections already, the most that this server takes");
            return Err(too_many(words, CONNECTIONS_RETRY_SECONDS));
        }
        *count += 1;
        Ok(())
    }

    /// A connection from `address` has ended.
    pub fn leave(&mut self, address: IpAddr) {
        let source = Source::of(address);
        if let Some(count) = self.connected.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.connected.remove(&source);
            }
        }
    }

    /// Whether `caller` may write, who has shown this token or none. Ask only if one is needed.
    ///
    /// # Errors
    /// 401 without a token that is known, 429 after too many wrong ones, 403 where a token cannot be shown, or only to
    /// everybody who reads along.
    pub fn judge(
        &mut self,
        caller: &Caller,
        shown: Option<&Credential>,
        now: Moment,
    ) -> Result<Option<Arc<Token>>, Refusal> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let source = Source::of(caller.address);
        if let Some(seconds) = self.failures.get(source).and_then(|failures| failures.blocked_seconds(now)) {
            self.limited.wrong_tokens += 1;
            let words = format!("your address has shown {FAILURES_MAX} wrong tokens");
            return Err(too_many(words, seconds));
        }
        if !caller.can_show {
            let words = "this server needs a token, and a bare name cannot carry one: /put size=BYTES token=TOKEN NAME, \
                         or HTTP with a password";
            return Err(Refusal::new(Code::FORBIDDEN, words));
        }
        let is_near = caller.address.to_canonical().is_loopback() && !caller.is_hidden;
        if !(caller.is_secure || self.policy.plain_tokens || is_near) {
            let words = "a token is not taken on a connection that others can read along; use TLS";
            return Err(Refusal::new(Code::FORBIDDEN, words));
        }
        let Some(shown) = shown else {
            let words = "this server needs a token: token=TOKEN in /put and /ask, the password in HTTP";
            return Err(Refusal::new(Code::UNAUTHORIZED, words));
        };
        let token = tokens.find(shown).cloned();
        if token.is_none() {
            self.failures.keep(source, |failures| failures.until <= now).count_one(now);
            return Err(Refusal::new(
                Code::UNAUTHORIZED,
                "the token is not one of this server's; ask the operator for one",
            ));
        }
        Ok(token)
    }

    /// An upload begins, by the client at `address` with this `token`. If its size is told, all of it is charged now. If not,
    /// content is charged as it comes ([`Access::grow`]). `None`: nothing of it is limited.
    ///
    /// # Errors
    /// 413 if the file is too large for its token, 429 until the day of the token or of the source is over.
    pub fn begin(
        &mut self,
        token: Option<&Arc<Token>>,
        address: IpAddr,
        size: Option<u64>,
        now: Moment,
    ) -> Result<Option<Box<Charge>>, Refusal> {
        let Some(mut charge) = self.begin_piece(token, address) else { return Ok(None) };
        charge.is_whole = size.is_some();
        charge.grow_to(size.unwrap_or(0))?;
        self.charge(&mut charge, size.unwrap_or(0), 1, now)?;
        Ok(Some(charge))
    }

    /// A resumable upload of HTTP begins, of this size if that is known. Only its number is charged; its content will be as it
    /// comes.
    ///
    /// # Errors
    /// As [`Access::begin`].
    pub fn begin_pieces(
        &mut self,
        token: Option<&Arc<Token>>,
        address: IpAddr,
        size: Option<u64>,
        now: Moment,
    ) -> Result<Option<Box<Charge>>, Refusal> {
        if let Some(whole) = self.begin(token, address, size, now)? {
            self.give_back(*whole);
        }
        self.begin(token, address, None, now)
    }

    /// A piece of a resumable upload begins, whose content is charged as it comes. `None`: nothing of it is limited.
    pub fn begin_piece(&mut self, token: Option<&Arc<Token>>, address: IpAddr) -> Option<Box<Charge>> {
        let is_limited = token.is_some_and(|token| token.is_limited()) || !self.policy.source_quota.is_unlimited();
        is_limited.then(|| Box::new(Charge::new(token.cloned(), Source::of(address))))
    }

    /// `bytes` more have come of an upload that is charged as it comes.
    ///
    /// # Errors
    /// As [`Access::begin`].
    pub fn grow(&mut self, charge: &mut Charge, bytes: u64, now: Moment) -> Result<(), Refusal> {
        charge.grow_to(charge.file_bytes.saturating_add(bytes))?;
        self.charge(charge, bytes, 0, now)
    }

    /// What the source at `address` has used of its day: bytes and uploads. Nothing, if the policy has no limit for it.
    pub fn used(&self, address: IpAddr) -> (u64, u32) {
        self.days_of_sources.get(Source::of(address)).map_or((0, 0), Day::used)
    }

    /// The upload has failed: it does not count.
    pub fn give_back(&mut self, charge: Charge) {
        let who = charge.token.as_ref().map(|token| token.who());
        if let Some(day) = who.and_then(|who| self.days_of_names.get_mut(who)) {
            day.give_back(&charge.of_name);
        }
        if !self.policy.source_quota.is_unlimited() {
            self.days_of_sources.keep(charge.source, Day::is_unused).give_back(&charge.of_source);
        }
    }

    /// Charges both the token and the source, or none of them.
    fn charge(&mut self, charge: &mut Charge, bytes: u64, uploads: u32, now: Moment) -> Result<(), Refusal> {
        let Self { policy, days_of_names, days_of_sources, limited: counted, .. } = self;
        let Charge { token, source, of_name, of_source, .. } = charge;
        let limited = token.as_ref().filter(|token| !token.quota().is_unlimited());
        let mut name = limited.map(|token| (token.quota(), days_of_names.entry(token.who().clone()).or_default()));
        let mut source = (!policy.source_quota.is_unlimited())
            .then(|| days_of_sources.keep(*source, |day| day.is_over(now) || day.is_unused()));
        if let Some((quota, day)) = &mut name {
            day.check(quota, bytes, uploads, now).map_err(|short| {
                counted.token_day += 1;
                short.refusal("this token")
            })?;
        }
        if let Some(day) = &mut source {
            day.check(&policy.source_quota, bytes, uploads, now).map_err(|short| {
                counted.source_day += 1;
                short.refusal("your address")
            })?;
        }
        if let Some((_, day)) = name {
            day.charge(of_name, bytes, uploads);
        }
        if let Some(day) = source {
            day.charge(of_source, bytes, uploads);
        }
        Ok(())
    }
}

impl Failures {
    fn count_one(&mut self, now: Moment) {
        if self.until <= now {
            *self = Self { count: 0, until: now + FAILURES_WITHIN };
        }
        self.count += 1;
        if self.count == FAILURES_MAX {
            self.until = now + FAILURES_WITHIN;
        }
    }

    /// After how many seconds the source may try again, if it has to wait.
    fn blocked_seconds(&self, now: Moment) -> Option<u32> {
        (self.count >= FAILURES_MAX && now < self.until).then(|| whole_seconds(self.until.since(now)))
    }
}

impl Short {
    fn refusal(self, whose: &str) -> Refusal {
        match self {
            Self::Never { max } => {
                let words = format!("the file is larger than {max} bytes, which is all that {whose} may send in a day");
                Refusal::new(Code::TOO_LARGE, words)
            }
            Self::Until { max, left, unit, after } => {
                too_many(format!("{whose} may send {max} {unit} in a day, and {left} are left"), whole_seconds(after))
            }
        }
    }
}

/// The sources whose days are counted.
fn days(policy: &Policy) -> usize {
    if policy.source_quota.is_unlimited() { 0 } else { SOURCES }
}

fn too_many(words: impl Into<String>, retry_seconds: u32) -> Refusal {
    Refusal { retry_seconds: Some(retry_seconds), ..Refusal::new(Code::TOO_MANY, words.into()) }
}

/// In seconds, rounded up: a client that waits so long is not early.
fn whole_seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs() + u64::from(span.subsec_nanos() > 0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn at(seconds: u64) -> Moment {
        Moment::after(Duration::from_secs(seconds))
    }

    fn digest(token: &str) -> Credential {
        Credential::of(token.as_bytes())
    }

    /// Of alice, whose token is "a", with these limits.
    fn tokens(limits: &str) -> Tokens {
        format!("alice {} {limits}\n", digest("a").to_hex()).parse().unwrap()
    }

    fn access(policy: Policy, limits: &str) -> Access {
        let mut access = Access::new(policy);
        access.replace_tokens(tokens(limits));
        access
    }

    fn caller(address: IpAddr) -> Caller {
        Caller { address, is_hidden: false, is_secure: false, can_show: true }
    }

    /// The code, and the seconds to wait.
    fn told<T>(outcome: Result<T, Refusal>) -> Result<(), (u16, Option<u32>)> {
        outcome.map(|_| ()).map_err(|refusal| (refusal.code.0, refusal.retry_seconds))
    }

    #[test]
    fn without_tokens_everybody_may_write() {
        let mut access = Access::new(Policy::default());
        assert_eq!(told(access.judge(&caller(ip("192.0.2.1")), None, at(0))), Ok(()));
    }

    #[test]
    fn a_token_is_needed_and_taken_where_it_can_be_shown_and_nobody_reads_along() {
        let mut access = access(Policy::default(), "");
        let mut judge = |caller: Caller, shown: Option<&str>| {
            told(access.judge(&caller, shown.map(digest).as_ref(), at(0))).map_err(|(code, _)| code)
        };
        let (far, near) = (caller(ip("192.0.2.1")), caller(HOME));
        for (caller, shown, expected) in [
            (near, Some("a"), Ok(())),
            (near, Some("b"), Err(401)),
            (near, None, Err(401)),
            (caller(ip("::1")), Some("a"), Ok(())),
            (caller(ip("::ffff:127.0.0.2")), Some("a"), Ok(())),
            (Caller { can_show: false, ..near }, None, Err(403)),
            // No challenge: a browser would send the password in clear.
            (far, None, Err(403)),
            (far, Some("a"), Err(403)),
            (Caller { is_secure: true, ..far }, Some("a"), Ok(())),
            (Caller { is_hidden: true, ..near }, Some("a"), Err(403)),
            (Caller { is_secure: true, ..far }, None, Err(401)),
        ] {
            assert_eq!(judge(caller, shown), expected, "{caller:?} {shown:?}");
        }
        let mut open = self::access(Policy { plain_tokens: true, ..Policy::default() }, "");
        assert_eq!(told(open.judge(&far, Some(&digest("a")), at(0))), Ok(()));
    }

    #[test]
    fn after_ten_wrong_tokens_in_a_minute_a_source_waits_for_one_and_no_other_source_does() {
        let mut access = access(Policy::default(), "");
        let mut judge =
            |address: IpAddr, shown: &str, now| told(access.judge(&caller(address), Some(&digest(shown)), now));
        for second in 0..10 {
            assert_eq!(judge(HOME, "b", at(second)), Err((401, None)));
        }
        assert_eq!(judge(HOME, "b", at(9)), Err((429, Some(60))));
        assert_eq!(
            judge(HOME, "a", at(9)),
            Err((429, Some(60))),
            "a right token is not confirmed while the source is blocked"
        );
        assert_eq!(judge(ip("127.0.0.2"), "a", at(9)), Ok(()));
        assert_eq!(judge(HOME, "a", at(68)), Err((429, Some(1))));
        assert_eq!(judge(HOME, "a", at(69)), Ok(()), "it was told so");
        // Fewer in each minute are never too many.
        for second in (100..2000).step_by(7) {
            assert_eq!(judge(HOME, "b", at(second)), Err((401, None)));
        }
    }

    #[test]
    fn strangers_in_any_number_cannot_make_an_honest_source_wait() {
        let mut access = access(Policy { plain_tokens: true, ..Policy::default() }, "");
        for stranger in 0..20_000u32 {
            let address = IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(stranger) << 64).into());
            for _ in 0..FAILURES_MAX {
                let _ = access.judge(&caller(address), Some(&digest("b")), at(0));
            }
        }
        assert_eq!(told(access.judge(&caller(ip("192.0.2.1")), Some(&digest("a")), at(0))), Ok(()));
    }

    #[test]
    fn a_source_has_as_many_connections_as_it_may() {
        let mut access = Access::new(Policy { per_source: Some(2), ..Policy::default() });
        let addresses = ["2001:db8:0:1::1", "2001:db8:0:1::2"].map(ip);
        for address in addresses {
            assert_eq!(told(access.enter(address)), Ok(()));
        }
        assert_eq!(told(access.enter(ip("2001:db8:0:1::3"))), Err((429, Some(5))));
        assert_eq!(told(access.enter(ip("2001:db8:0:2::3"))), Ok(()));
        access.leave(addresses[0]);
        assert_eq!(told(access.enter(addresses[0])), Ok(()));
        addresses.iter().for_each(|address| access.leave(*address));
        access.leave(ip("2001:db8:0:2::3"));
        assert!(access.connected.is_empty(), "nothing is kept of those who left");
        let networks = Networks::new(vec!["192.0.2.0/24".parse().unwrap()]);
        let mut access = Access::new(Policy { allow: networks, ..Policy::default() });
        assert_eq!((told(access.enter(ip("192.0.2.1"))), told(access.enter(HOME))), (Ok(()), Err((403, None))));
    }

    #[test]
    fn uploads_under_way_cannot_exceed_a_day_together_and_a_failed_one_gives_back() {
        let mut access = access(Policy::default(), "per-day=100");
        let token = access.judge(&caller(HOME), Some(&digest("a")), at(0)).unwrap();
        let begin = |access: &mut Access, size| access.begin(token.as_ref(), HOME, size, at(0));
        let first = begin(&mut access, Some(60)).unwrap().unwrap();
        let mut unsized_one = begin(&mut access, None).unwrap().unwrap();
        assert_eq!(told(access.grow(&mut unsized_one, 40, at(0))), Ok(()));
        assert_eq!(told(begin(&mut access, Some(1))), Err((429, Some(24 * 3600))));
        assert_eq!(told(begin(&mut access, Some(101))), Err((413, None)), "no day has so much");
        assert_eq!(told(access.grow(&mut unsized_one, 1, at(0))), Err((429, Some(24 * 3600))));
        access.give_back(*unsized_one);
        assert_eq!(told(begin(&mut access, Some(41))), Err((429, Some(24 * 3600))));
        let second = begin(&mut access, Some(40)).unwrap().unwrap();
        access.give_back(*first);
        access.give_back(*second);
        assert_eq!(told(begin(&mut access, Some(100))), Ok(()));
    }

    #[test]
    fn a_source_has_its_own_day_and_is_charged_only_if_the_token_has_enough() {
        let quota = Quota { bytes: Some(50), uploads: Some(2) };
        let mut access = access(Policy { source_quota: quota, ..Policy::default() }, "per-day=70");
        let token = access.judge(&caller(HOME), Some(&digest("a")), at(0)).unwrap();
        let mut begin = |address, size| told(access.begin(token.as_ref(), address, Some(size), at(0)));
        let tomorrow = Err((429, Some(24 * 3600)));
        assert_eq!(begin(HOME, 40), Ok(()));
        assert_eq!(begin(HOME, 11), tomorrow, "of the source 10 are left");
        assert_eq!(begin(ip("127.0.0.2"), 31), tomorrow, "of the token 30 are left");
        assert_eq!(begin(ip("127.0.0.2"), 30), Ok(()));
        assert_eq!(begin(HOME, 0), Ok(()));
        assert_eq!(begin(HOME, 0), tomorrow, "two files");
        assert_eq!(told(access.begin(None, ip("127.0.0.3"), Some(51), at(0))), Err((413, None)));
    }

    #[test]
    fn what_was_sent_counts_on_when_the_tokens_are_read_again() {
        let mut access = access(Policy::default(), "per-day=100");
        let begin = |access: &mut Access, size| {
            let token = access.judge(&caller(HOME), Some(&digest("a")), at(0)).unwrap();
            told(access.begin(token.as_ref(), HOME, Some(size), at(0)))
        };
        assert_eq!(begin(&mut access, 100), Ok(()));
        access.replace_tokens(tokens("per-day=150 max-file-size=40"));
        assert_eq!(begin(&mut access, 41), Err((413, None)));
        assert_eq!(begin(&mut access, 40), Ok(()));
        assert_eq!(begin(&mut access, 11), Err((429, Some(24 * 3600))));
    }

    #[test]
    fn a_file_that_comes_in_pieces_has_one_size() {
        let mut access = access(Policy::default(), "max-file-size=100 per-day=1000 uploads-per-day=1");
        let token = access.judge(&caller(HOME), Some(&digest("a")), at(0)).unwrap();
        let token = token.as_ref();
        assert_eq!(told(access.begin_pieces(token, HOME, Some(101), at(0))), Err((413, None)));
        let mut first = access.begin_pieces(token, HOME, Some(100), at(0)).unwrap().unwrap();
        assert_eq!(told(access.begin_pieces(token, HOME, None, at(0))), Err((429, Some(24 * 3600))));
        assert_eq!(told(access.grow(&mut first, 60, at(0))), Ok(()));
        let mut second = access.begin_piece(token, HOME).unwrap();
        second.continue_at(60);
        assert_eq!(told(access.grow(&mut second, 40, at(0))), Ok(()));
        assert_eq!(told(access.grow(&mut second, 1, at(0))), Err((413, None)));
    }
}

//! A connection that a proxy has made: its header tells whose it is.
//!
//! Until then nobody is limited, since all clients of the proxy would share its address. From then on the client counts as if
//! it had connected itself.

use super::Connection;
use crate::net::Stream;
use crate::proto::{Code, Origin, PROXY_SIGNATURE, Peer, ProxyHeader, Refusal};
use crate::server::proxied::Proxied;
use crate::server::story::{Fact, Scene, Who};
use crate::server::visit::Context;
use crate::store::Store;

impl<S: Stream, D: Store> Connection<S, D> {
    /// It comes from a proxy: a header has to come first.
    pub fn begin_proxied(&mut self) {
        self.rare.get_or_insert_default().proxied = Some(Proxied::Awaited(ProxyHeader::default()));
    }

    /// Whether its address counts for the limits of a source.
    pub fn has_entered(&self) -> bool {
        !matches!(self.proxied(), Some(Proxied::Awaited(_) | Proxied::Nobody))
    }

    pub(super) fn is_proxied(&self) -> bool {
        self.proxied().is_some()
    }

    /// Whether its address is not that of the client.
    pub(super) fn is_hidden(&self) -> bool {
        matches!(self.proxied(), Some(Proxied::Hidden))
    }

    pub(super) fn awaits_proxy_header(&self) -> bool {
        matches!(self.proxied(), Some(Proxied::Awaited(_))) && !self.receiver.is_over()
    }

    fn proxied(&self) -> Option<&Proxied> {
        self.rare.as_ref()?.proxied.as_ref()
    }

    fn set_proxied(&mut self, proxied: Proxied) {
        self.rare.get_or_insert_default().proxied = Some(proxied);
    }

    /// Takes the header from the front of the first bytes, if one has to come. Returns whether it has, and what follows is
    /// for the conversation.
    pub(super) fn follows_proxy_header(&mut self, first: &mut &[u8], cx: &mut Context<D>) -> bool {
        let proxied = self.rare.as_mut().and_then(|rare| rare.proxied.as_mut());
        if let Some(Proxied::Awaited(header)) = proxied {
            match header.take(first) {
                None => return false,
                Some(Ok(origin)) if self.comes_from(&origin, cx) => {}
                Some(Ok(_)) => return false,
                Some(Err(refusal)) => return self.refuse_proxied(refusal, cx),
            }
        }
        !first.starts_with(PROXY_SIGNATURE) || self.refuse_proxied(unexpected(), cx)
    }

    /// Whether the stream ends within the header. Then the connection is refused: a proxy sends its header whole.
    pub(super) fn ends_in_proxy_header(&mut self, cx: &mut Context<D>) -> bool {
        let is_cut = matches!(self.proxied(), Some(Proxied::Awaited(header)) if !header.is_empty());
        if is_cut {
            self.refuse_proxied(ProxyHeader::cut_off(), cx);
        }
        is_cut
    }

    /// Returns whether the client may connect.
    fn comes_from(&mut self, origin: &Origin, cx: &mut Context<D>) -> bool {
        cx.story.scene(|| Scene::Proxied(origin));
        let proxied = match origin {
            Origin::Proxy => {
                cx.story.tell(&Fact::Checked);
                // It may claim any address, so to limit its own would protect nothing.
                self.set_proxied(Proxied::Nobody);
                return true;
            }
            Origin::Unknown => Proxied::Hidden,
            Origin::Client { source, .. } => {
                cx.story.tell(&Fact::Proxied { client: *source });
                Proxied::Known
            }
        };
        if let Err(refusal) = cx.access.enter(cx.story.whom.peer().ip()) {
            return self.refuse_proxied(refusal, cx);
        }
        self.set_proxied(proxied);
        if let Origin::Client { name: Some(name), .. } = origin {
            cx.story.name(&Who::new(name));
        }
        true
    }

    /// Returns `false`: nothing that follows is for the conversation.
    fn refuse_proxied(&mut self, refusal: Refusal, cx: &mut Context<D>) -> bool {
        if self.awaits_proxy_header() {
            self.set_proxied(Proxied::Nobody);
        }
        self.refuse(refusal, Peer::Sending, cx.rules, &mut cx.story);
        false
    }
}

/// The refusal of a header where none is taken.
fn unexpected() -> Refusal {
    let words = "a PROXY header is taken once, and from proxies only; the operator can name yours with --proxy-from";
    Refusal::new(Code::FORBIDDEN, words)
}

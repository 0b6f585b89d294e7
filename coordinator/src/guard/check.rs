//! The layer before all services: finds out who calls, looks up what the call needs, and lets it
//! through or answers in its place. It sees no message: what it denies is not read.

use std::{
    convert::Infallible,
    mem,
    task::{Context, Poll},
};

use gapless_platform::tokens::{Entry, Role};
use gapless_proto::access::{AUTHORIZATION, BEARER};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
};
use tower_layer::Layer;

use super::{
    Guard,
    audit::{Caller, Outcome, Record, Subject},
    door::Peer,
    methods::{self, Needs},
};

#[derive(Clone)]
pub struct CheckLayer {
    pub(super) guard: Guard,
}

impl<S> Layer<S> for CheckLayer {
    type Service = Check<S>;

    fn layer(&self, inner: S) -> Check<S> {
        Check {
            guard: self.guard.clone(),
            inner,
        }
    }
}

#[derive(Clone)]
pub struct Check<S> {
    guard: Guard,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Check<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The one that said it is ready is the one to call.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let path = request.uri().path().to_string();
        let method = methods::of(&path);
        let mut caller = caller_of(&request);
        match self.guard.judge(&path, method.needs, &request, &mut caller) {
            Ok(None) => {}
            Ok(Some(entry)) => {
                let guard = self.guard.clone();
                request.extensions_mut().insert(Pass { guard, entry });
            }
            Err(status) => {
                let subject = Subject::default();
                let audit = &self.guard.audit;
                audit.tell(&caller, &path, &subject, Outcome::Denied, status.message());
                return Box::pin(async move { Ok(status.into_http()) });
            }
        }
        // The token goes no further.
        request.headers_mut().remove(AUTHORIZATION);
        if !method.audited {
            return Box::pin(async move { inner.call(request).await });
        }
        let record = Record::new(self.guard.audit.clone(), caller, path);
        request.extensions_mut().insert(record.subject.clone());
        Box::pin(async move {
            let response = inner.call(request).await?;
            match response.extensions().get::<Status>() {
                Some(status) if status.code() != Code::Ok => {
                    record.tell(Outcome::Refused, &format!("{:?}: {}", status.code(), status.message()));
                }
                _ => record.tell(Outcome::Done, ""),
            }
            Ok(response)
        })
    }
}

/// What a long call was let in with, to be looked at again while it lasts. Calls that need no token have
/// none.
#[derive(Clone)]
pub struct Pass {
    guard: Guard,
    entry: Entry,
}

impl Pass {
    /// Why the call would not be let in any more.
    pub fn still_holds(&self) -> Result<(), Status> {
        let Some(tokens) = &self.guard.tokens else {
            return Ok(());
        };
        let name = &self.entry.name;
        if !tokens.now().holds(&self.entry) {
            return Err(Status::unauthenticated(format!(
                "the token of {name} is no longer, or no longer so, in the coordinator's tokens file"
            )));
        }
        self.guard.in_time(&self.entry)
    }
}

fn caller_of(request: &http::Request<Body>) -> Caller {
    let peer = request.extensions().get::<Peer>();
    Caller {
        peer: peer.map(|peer| peer.address),
        certificate: peer.and_then(|peer| peer.certificate.clone()),
        ..Caller::default()
    }
}

impl Guard {
    /// Whether this call may go on, and the token that lets it. Fills in who calls as far as the token tells.
    fn judge(
        &self,
        path: &str,
        needs: Needs,
        request: &http::Request<Body>,
        caller: &mut Caller,
    ) -> Result<Option<Entry>, Status> {
        let (Some(tokens), Needs::Role(needed)) = (&self.tokens, needs) else {
            return Ok(None);
        };
        let method = path.trim_start_matches('/');
        let Some(header) = request.headers().get(AUTHORIZATION) else {
            return Err(Status::unauthenticated(format!(
                "{method} needs a token of the role {needed}: give one with --token-file, GAPLESS_TOKEN_FILE or \
                 GAPLESS_TOKEN; whoever keeps the coordinator's tokens file makes one with `gapless token new`"
            )));
        };
        let token = header.to_str().ok().and_then(|text| text.strip_prefix(BEARER));
        let token = token
            .ok_or_else(|| Status::unauthenticated("the metadata `authorization` must be `Bearer` and a token"))?;
        let book = tokens.now();
        let entry = book.find(token).ok_or_else(|| {
            Status::unauthenticated("this token is not, or no longer, in the coordinator's tokens file")
        })?;
        caller.token = Some(entry.name.clone());
        caller.role = Some(entry.role);
        self.in_time(entry)?;
        if entry.role.permits(needed) {
            return Ok(Some(entry.clone()));
        }
        Err(Status::permission_denied(denied(
            method,
            needed,
            &entry.name,
            entry.role,
        )))
    }

    fn in_time(&self, entry: &Entry) -> Result<(), Status> {
        let name = &entry.name;
        match entry.has_expired(self.clock.now_micros()) {
            true => Err(Status::unauthenticated(format!(
                "the token of {name} has expired; ask for a new one"
            ))),
            false => Ok(()),
        }
    }
}

fn denied(method: &str, needed: Role, name: &str, held: Role) -> String {
    let or_more = match needed {
        Role::Admin | Role::Worker => "",
        Role::View | Role::Submit | Role::Operate => " (or one above it)",
    };
    format!("{method} needs the role {needed}{or_more}; the token of {name} has the role {held}")
}

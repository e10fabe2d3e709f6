//! The token endpoint over HTTP.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::AbortHandle, task::JoinSet, time::sleep};

use super::{
    Call, State, answer,
    fault::{Fault, Reply},
    model::Outcome,
};

type Shared = Arc<Mutex<State>>;

/// Closes the connection without an answer.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut by the test")
    }
}

impl std::error::Error for Cut {}

/// Serves until aborted; aborting cuts every connection.
pub(super) async fn serve(address: SocketAddr, state: Shared) -> io::Result<(SocketAddr, AbortHandle)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            while connections.try_join_next().is_some() {}
            let state = state.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| token(request, state.clone()));
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    });
    Ok((address, task.abort_handle()))
}

async fn token(request: Request<Incoming>, state: Shared) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/resource" {
        return respond(resource(&head.headers, &state));
    }
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let field = |name| {
        head.headers
            .get(name)
            .and_then(|value: &header::HeaderValue| value.to_str().ok())
    };
    let content_type = field(header::CONTENT_TYPE).unwrap_or_default().to_owned();
    let parameters = parameters(&content_type, &body);
    let refresh_token = parameters.get("refresh_token").cloned().unwrap_or_default();
    let (index, fault) = arrive(
        &state,
        refresh_token,
        Call {
            arrived: Instant::now(),
            over: None,
            refresh_token: String::new(),
            family: String::new(),
            generation: 0,
            login: 0,
            faulted: false,
            outcome: Outcome::NotProcessed,
            content_type,
            authorization: field(header::AUTHORIZATION).map(str::to_owned),
            parameters,
        },
    );
    // Also when the hub goes away in the middle: a cut call is over.
    let _over = Over { state: &state, index };
    respond(treat(&state, index, fault).await?)
}

/// What access tokens are for (RFC 6750).
fn resource(headers: &header::HeaderMap, state: &Shared) -> Reply {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let status = if token.is_some_and(|token| lock(state).model.is_live(token)) {
        200
    } else {
        401
    };
    Reply::empty(status)
}

fn respond(reply: Reply) -> Result<Response<Full<Bytes>>, Cut> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    response.body(Full::from(Bytes::from(reply.body))).map_err(|_| Cut)
}

struct Over<'a> {
    state: &'a Shared,
    index: usize,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        lock(self.state).calls[self.index].over = Some(Instant::now());
    }
}

fn arrive(state: &Shared, refresh_token: String, mut call: Call) -> (usize, Option<Fault>) {
    let mut state = lock(state);
    if let Some(pair) = state.model.pair_of_refresh(&refresh_token) {
        call.family.clone_from(&pair.family);
        call.generation = pair.generation;
        call.login = pair.login;
    }
    call.refresh_token = refresh_token;
    let mine = state
        .once_for
        .get_mut(&call.family)
        .and_then(std::collections::VecDeque::pop_front);
    let fault = mine.or_else(|| state.once.pop_front()).or_else(|| state.always.clone());
    call.faulted = fault.is_some();
    state.calls.push(call);
    (state.calls.len() - 1, fault)
}

async fn treat(state: &Shared, index: usize, fault: Option<Fault>) -> Result<Reply, Cut> {
    match fault {
        None => Ok(process(state, index)),
        Some(Fault::Slow(span)) => {
            sleep(span).await;
            Ok(process(state, index))
        }
        Some(Fault::SlowAnswer(span)) => {
            let reply = process(state, index);
            sleep(span).await;
            Ok(reply)
        }
        Some(Fault::HoldBefore(gate)) => {
            gate.passed().await;
            Ok(process(state, index))
        }
        Some(Fault::HoldAfter(gate)) => {
            let reply = process(state, index);
            gate.passed().await;
            Ok(reply)
        }
        Some(Fault::CutBefore) => Err(Cut),
        Some(Fault::CutAfter) => {
            process(state, index);
            Err(Cut)
        }
        Some(Fault::Refuse(reply)) => Ok(reply),
        Some(Fault::Garble(reply)) => {
            process(state, index);
            Ok(reply)
        }
    }
}

fn process(state: &Shared, index: usize) -> Reply {
    let mut state = lock(state);
    let refresh_token = state.calls[index].refresh_token.clone();
    let (outcome, pair) = state.model.redeem(&refresh_token);
    state.calls[index].outcome = outcome;
    match pair {
        Some(pair) => Reply::empty(200)
            .header("content-type", "application/json")
            .header("cache-control", "no-store")
            .body(&answer(&pair, &state.model.rules).to_string()),
        None => state.model.rules.refusal.clone(),
    }
}

fn parameters(content_type: &str, body: &[u8]) -> HashMap<String, String> {
    if content_type.starts_with("application/json") {
        serde_json::from_slice(body).unwrap_or_default()
    } else {
        url::form_urlencoded::parse(body).into_owned().collect()
    }
}

fn lock(state: &Shared) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

//! `POST /token`: the rules, and the faults around them.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use lockstep_protocol::Secret;
use serde_json::json;
use url::form_urlencoded;

use super::{
    book::{Book, TokenAnswer},
    fault::{FaultBody, Harm, Plan, When},
    http::drop_connection,
    oauth_error::OauthError,
    request::TokenRequest,
};

/// The longest `User-Agent` kept in the list of calls, in characters.
const LONGEST_USER_AGENT: usize = 100;

pub(crate) async fn token(
    State(book): State<Arc<Book>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = TokenRequest::read(&headers, &body);
    let (n, plan) = book.arrive(request.as_ref().ok(), client, user_agent(&headers));
    let delayed = plan.delay.is_some();
    let answer = answer(book, n, request, plan);
    if !delayed {
        return answer.await;
    }
    // A real server goes on when its client has given up: the commit after a time-out is the point of a delay.
    match tokio::spawn(answer).await {
        Ok(response) => response,
        Err(_) => drop_connection(),
    }
}

async fn answer(book: Arc<Book>, n: u64, request: Result<TokenRequest, OauthError>, plan: Plan) -> Response {
    wait(&plan, When::Before).await;
    if let Some((When::Before, harm)) = &plan.harm {
        return respond(&book, n, harm.play(None).await);
    }
    let decided = book.decide(n, &request);
    wait(&plan, When::After).await;
    let response = match plan.harm {
        Some((_, harm)) => harm.play(Some(decided)).await,
        None => truth(decided),
    };
    respond(&book, n, response)
}

fn respond(book: &Book, n: u64, response: Option<Response>) -> Response {
    match response {
        Some(response) => {
            book.answered(n, response.status().as_u16());
            response
        }
        None => drop_connection(),
    }
}

async fn wait(plan: &Plan, side: When) {
    if let Some((when, span)) = plan.delay
        && when == side
    {
        tokio::time::sleep(span).await;
    }
}

fn truth(decided: Result<TokenAnswer, OauthError>) -> Option<Response> {
    Some(match decided {
        Ok(answer) => ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response(),
        Err(error) => error.into_response(),
    })
}

impl Harm {
    /// The response in place of the true one; `None` drops the connection.
    async fn play(&self, decided: Option<Result<TokenAnswer, OauthError>>) -> Option<Response> {
        match self {
            Self::Lost => None,
            Self::Hang => std::future::pending().await,
            Self::Garbage => Some(Html("<html><body>It works!</body></html>").into_response()),
            Self::Status {
                status,
                retry_after,
                location,
                body,
                error,
            } => Some(odd_status(
                *status,
                retry_after.as_deref(),
                location.as_deref(),
                *body,
                error,
            )),
            Self::Reshape { omit, set } => match decided {
                Some(Ok(answer)) => {
                    let mut shape = serde_json::to_value(answer).unwrap_or_default();
                    if let Some(fields) = shape.as_object_mut() {
                        fields.retain(|name, _| !omit.contains(name));
                        fields.extend(set.clone());
                    }
                    Some(Json(shape).into_response())
                }
                Some(refused) => truth(refused),
                None => Some(Json(set.clone()).into_response()),
            },
        }
    }
}

fn odd_status(
    status: u16,
    retry_after: Option<&str>,
    location: Option<&str>,
    body: FaultBody,
    error: &str,
) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match body {
        FaultBody::Json => {
            Json(json!({ "error": error, "error_description": "a fault was asked for" })).into_response()
        }
        FaultBody::Html => Html("<html><body><h1>Something went wrong</h1></body></html>").into_response(),
        FaultBody::Empty => StatusCode::OK.into_response(),
    };
    *response.status_mut() = status;
    for (name, value) in [(header::RETRY_AFTER, retry_after), (header::LOCATION, location)] {
        if let Some(value) = value.and_then(|text| HeaderValue::from_str(text).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// `POST /revoke` (RFC 7009): always 200, whatever the token was.
pub(crate) async fn revoke(State(book): State<Arc<Book>>, body: Bytes) -> StatusCode {
    let token = form_urlencoded::parse(&body).find(|(name, _)| name == "token");
    if let Some((_, token)) = token {
        book.revoke_token(&Secret::new(token));
    }
    StatusCode::OK
}

fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(text.chars().take(LONGEST_USER_AGENT).collect())
}

//! The HTTP side, and the authorization server of a device-side redeem.

use std::time::Duration;

use axum::{
    Json,
    extract::{Form, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use lockstep_protocol::{
    Code, Cursor, GrantName, HubFrame, UnixSeconds,
    frame::Resume,
    http::{GrantVersion, PollAnswer, Problem, RefreshBody},
};
use serde::Deserialize;
use tokio::time::timeout;

use super::{Core, Hub, Refreshing};

#[derive(Deserialize)]
pub(super) struct PollQuery {
    after: Option<String>,
    wait: Option<u64>,
}

pub(super) async fn poll(State(hub): State<Hub>, Query(query): Query<PollQuery>, request: Request) -> Response {
    let wait = query.wait.unwrap_or(0);
    let bearer = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
    let (works, cut, mute, taken) = hub.with(|core| {
        core.polls.push((query.after.clone(), wait));
        if let Some(Ok(cursor)) = query.after.as_deref().map(str::parse::<Cursor>) {
            // A poll may still have been on its way when the epoch changed.
            if cursor.epoch == core.epoch {
                core.acked = core.acked.max(cursor.seq.0);
            }
        }
        let taken = core
            .takes
            .as_ref()
            .is_none_or(|takes| bearer == format!("Bearer {takes}"));
        (core.polls_work, core.cut_polls_after, core.mute_polls, taken)
    });
    if !works {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if !taken {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if mute {
        std::future::pending::<()>().await;
    }
    let held = hold(&hub, query.after.as_deref(), Duration::from_secs(wait));
    match cut {
        None => held.await,
        Some(cut) => timeout(cut, held)
            .await
            .unwrap_or_else(|_| StatusCode::GATEWAY_TIMEOUT.into_response()),
    }
}

async fn hold(hub: &Hub, after: Option<&str>, wait: Duration) -> Response {
    let mut changed = hub.changed.subscribe();
    let newer = async {
        loop {
            let found = {
                let core = hub.core.lock().unwrap();
                let (resume, from) = core.resume(after);
                (resume != Resume::Uptodate).then(|| poll_answer(&core, resume, from))
            };
            if let Some(answer) = found {
                return answer;
            }
            changed.changed().await.unwrap();
        }
    };
    match timeout(wait.max(Duration::from_millis(1)), newer).await {
        Ok(answer) => Json(answer).into_response(),
        Err(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

fn poll_answer(core: &Core, resume: Resume, from: u64) -> PollAnswer {
    let mut answer = PollAnswer {
        epoch: core.epoch,
        time: UnixSeconds(core.now()),
        cursor: core.cursor(),
        resume,
        tokens: Vec::new(),
        statuses: Vec::new(),
    };
    for frame in core.newer_than(from) {
        match frame {
            HubFrame::Token(token) => answer.tokens.push(token),
            HubFrame::Status(status) => answer.statuses.push(status),
            _ => {}
        }
    }
    answer
}

pub(super) async fn refresh(
    State(hub): State<Hub>,
    Path((provider, account)): Path<(String, String)>,
    Json(body): Json<RefreshBody>,
) -> Response {
    let grant = GrantName::new(&provider, &account).unwrap();
    let came = hub.with(|core| core.refresh(&grant, body.rejected_version));
    match came {
        Ok(Some(version)) => Json(GrantVersion { grant, version }).into_response(),
        Ok(None) => std::future::pending().await,
        Err((code, retry_at)) => {
            let status = if code == Code::UnknownGrant { 404 } else { 503 };
            let problem = Problem {
                kind: "about:blank".into(),
                title: "no".into(),
                status,
                code,
                detail: "no".into(),
                retry_at: retry_at.map(UnixSeconds),
            };
            let mut response = Json(problem).into_response();
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
    }
}

#[derive(Deserialize)]
pub(super) struct TokenForm {
    grant_type: String,
    refresh_token: String,
}

/// The device token endpoint: the newest advances, the parent gives the newest again, anything else is revoked.
pub(super) async fn token(State(hub): State<Hub>, Form(form): Form<TokenForm>) -> Response {
    assert_eq!(form.grant_type, "refresh_token");
    let granted = hub.with(|core| {
        core.presented.push(form.refresh_token.clone());
        let (newest, parent) = core.device_token.clone();
        if form.refresh_token == newest {
            let next = format!("lsd_{}", core.purchases + 1);
            core.device_token = (next, Some(newest));
        } else if Some(&form.refresh_token) != parent.as_ref() {
            return Err(false);
        }
        core.purchases += 1;
        if core.lose_purchases > 0 {
            core.lose_purchases -= 1;
            return Err(true);
        }
        Ok((
            format!("dat-{}", core.purchases),
            core.expires_in,
            core.device_token.0.clone(),
        ))
    });
    match granted {
        Ok((access_token, expires_in, refresh_token)) => Json(serde_json::json!({
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": expires_in,
            "refresh_token": refresh_token,
        }))
        .into_response(),
        Err(true) => StatusCode::BAD_GATEWAY.into_response(),
        Err(false) => (
            StatusCode::BAD_REQUEST,
            Json(serde_json::json!({ "error": "invalid_grant" })),
        )
            .into_response(),
    }
}

/// The authorization server of a device-side redeem.
pub(super) async fn provider(State(hub): State<Hub>, headers: HeaderMap, body: String) -> Response {
    let kind = headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let (status, answer, delay) = hub.with(|core| {
        core.redeems.push((kind, body));
        core.provider.clone()
    });
    let mut changed = hub.changed.subscribe();
    while hub.core.lock().unwrap().hold_redeems {
        changed.changed().await.unwrap();
    }
    tokio::time::sleep(delay).await;
    (StatusCode::from_u16(status).unwrap(), answer).into_response()
}

#[derive(Deserialize)]
pub(super) struct FetchQuery {
    min_validity: u64,
}

/// A token with enough life left, by the hub's clock.
pub(super) async fn fetch(
    State(hub): State<Hub>,
    Path((provider, account)): Path<(String, String)>,
    Query(query): Query<FetchQuery>,
) -> Response {
    let grant = GrantName::new(&provider, &account).unwrap();
    hub.with(|core| {
        core.fetches.push((grant.clone(), query.min_validity));
        if let Refreshing::Mint = core.refreshing {
            core.mint(&grant);
        }
        match &core.grants[&grant] {
            HubFrame::Token(token) => Json(token).into_response(),
            _ => StatusCode::CONFLICT.into_response(),
        }
    })
}

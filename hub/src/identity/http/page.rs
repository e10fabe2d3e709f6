//! `/oauth/device`: the small page where a user says yes or no to a device (RFC 8628 section 3.3).
//!
//! Nobody is signed in here and there is no cookie: what gives a form its power is the token that the user pastes, and
//! after that a ticket sealed by the hub, good for this one question. So another site's page has nothing to send along
//! with a forged request. No scripts; nothing is loaded from anywhere.

use std::{net::IpAddr, sync::LazyLock, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    extract::{Extension, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use lockstep_engine::time::Unix;
use lockstep_protocol::{Secret, UserId};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Door, device_flow::address, params::Params};
use crate::{
    audit::By,
    clock,
    identity::{Approval, Identity, Issuer, Waiting, codes},
    store::Sealed,
    transport::listener::Peer,
};

/// Where it is.
pub const PATH: &str = "/oauth/device";
/// How long a user may look at the question.
const TICKET_GOOD: Duration = Duration::from_secs(5 * 60);
/// What a ticket's seal is bound to.
const TICKET: &str = "device-approval";
/// Longer tickets are not ours.
const LONGEST_TICKET: usize = 4096;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;padding:0 1rem;color:#1b1f24}\
label{display:block;margin:1rem 0}input{font:inherit;display:block;width:100%;box-sizing:border-box;padding:.5rem;\
border:1px solid #8a929c;border-radius:4px}button{font:inherit;padding:.5rem 1.25rem;margin-right:.75rem;border-radius:4px;\
border:1px solid #1b1f24;background:#fff;cursor:pointer}button.yes{background:#1b1f24;color:#fff}\
dt{color:#59636e}dd{margin:0 0 .5rem}.no{color:#a40e26}";

/// Nothing but our own style, nowhere to send a form but here, in nobody's frame.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
});

/// What a user may do who has shown a token: answer one question.
#[derive(Serialize, Deserialize)]
struct Ticket {
    user_code: String,
    user: UserId,
    by: By,
    until: Unix,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    user_code: Option<String>,
}

/// `GET`: the form.
pub(super) async fn show(State(door): State<Door>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let typed = asked.ok().and_then(|Query(asked)| asked.user_code);
    // Only what looks like a code is written back.
    let code = typed.as_deref().and_then(codes::spelled).unwrap_or_default();
    form(&door, StatusCode::OK, &code, "")
}

/// `POST`: code and token, answered with the question; then the answer to that.
pub(super) async fn say(
    State(door): State<Door>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    params: Params,
) -> Response {
    if !is_from_here(&door.identity.settings.issuer, &headers) {
        return told(StatusCode::FORBIDDEN, "no", "This form was not sent from this page.");
    }
    if !door.identity.settings.devices_approve {
        return form(&door, StatusCode::FORBIDDEN, "", "");
    }
    let address = address(peer);
    if let Err(come_back) = door.identity.may_guess(address) {
        let words = "Too many wrong codes or tokens from here. Wait a minute and try again.";
        let mut response = told(StatusCode::TOO_MANY_REQUESTS, "no", words);
        let seconds = HeaderValue::from(come_back.as_secs() + 1);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
        return response;
    }
    match params.get("ticket") {
        None => question(&door, address, &params).await,
        Some(ticket) => answer(&door, ticket, params.text("action")).await,
    }
}

/// Who is not known is told the same as who types a code that is not known.
async fn question(door: &Door, address: Option<IpAddr>, params: &Params) -> Response {
    let identity = &door.identity;
    let typed = params.text("user_code").unwrap_or_default();
    let now = clock::unix();
    let token = params.get("token").cloned().unwrap_or_else(|| Secret::new(""));
    let approver = identity.vouched(&token, now).await.ok();
    let waiting = match identity.waiting(typed).await {
        Ok(waiting) => waiting,
        Err(error) => return trouble(&error),
    };
    let (Some((user, by)), Some(waiting)) = (approver, waiting) else {
        identity.guessed_wrong(address);
        let code = codes::spelled(typed).unwrap_or_default();
        let words = "The code or the token is not valid, or no longer. Check both and try again.";
        return form(door, StatusCode::BAD_REQUEST, &code, words);
    };
    let ticket = seal(
        identity,
        &Ticket {
            user_code: waiting.user_code.clone(),
            user: user.clone(),
            by,
            until: now + TICKET_GOOD,
        },
    );
    page(StatusCode::OK, &ask(&waiting, &user, &ticket))
}

async fn answer(door: &Door, ticket: &Secret, action: Option<&str>) -> Response {
    let identity = &door.identity;
    let ticket = open(identity, ticket).filter(|ticket| ticket.until > clock::unix());
    let is_gone = |by: By| matches!(by, By::Device(device) if identity.is_revoked(device));
    let Some(ticket) = ticket.filter(|ticket| !is_gone(ticket.by)) else {
        return form(door, StatusCode::BAD_REQUEST, "", "That took too long. Start again.");
    };
    let said = match action {
        Some("approve") => {
            let approval = Approval {
                user: ticket.user,
                // A page gives no more than a place among the devices; the rest is the operator's to give.
                redeemer: false,
                may_offer: false,
                priority: None,
                by: ticket.by,
            };
            let approved = identity.approve(&ticket.user_code, approval).await;
            approved.map(|waiting| waiting.map(|waiting| ("yes", format!("{} is approved.", waiting.name))))
        }
        Some("deny") => {
            let denied = identity.deny(&ticket.user_code).await;
            denied.map(|waiting| waiting.map(|waiting| ("no", format!("{} is refused.", waiting.name))))
        }
        _ => return form(door, StatusCode::BAD_REQUEST, "", "Say yes or no."),
    };
    match said {
        Ok(Some((class, words))) => told(StatusCode::OK, class, &format!("{words} You may close this page.")),
        Ok(None) => told(
            StatusCode::CONFLICT,
            "no",
            "Somebody has answered already, or the code has expired.",
        ),
        Err(error) => trouble(&error),
    }
}

fn trouble(error: &dyn std::fmt::Display) -> Response {
    tracing::error!(%error, "device page");
    told(
        StatusCode::SERVICE_UNAVAILABLE,
        "no",
        "The hub cannot do it now. Try again in a moment.",
    )
}

fn seal(identity: &Identity, ticket: &Ticket) -> String {
    let plain = serde_json::to_vec(ticket).unwrap_or_default();
    let sealed = identity.vault.seal(TICKET, &plain);
    URL_SAFE_NO_PAD.encode([&sealed.key.to_be_bytes()[..], &sealed.bytes].concat())
}

fn open(identity: &Identity, ticket: &Secret) -> Option<Ticket> {
    if ticket.len() > LONGEST_TICKET {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(ticket.expose()).ok()?;
    let (key, bytes) = bytes.split_first_chunk()?;
    let sealed = Sealed {
        key: u32::from_be_bytes(*key),
        bytes: bytes.to_vec(),
    };
    let plain = identity.vault.open_sealed(TICKET, &sealed).ok()?;
    serde_json::from_slice(&plain).ok()
}

/// Browsers say where a form comes from; only this page is a good place. No origin: not a browser.
fn is_from_here(issuer: &Issuer, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let site = text(HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return false;
    }
    let Some(origin) = text(header::ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.parse::<Url>().map(|url| url.origin()) else {
        return false;
    };
    let here = match issuer {
        Issuer::Public(url) => Some(url.clone()),
        // Without a public address the hub is whoever it was called.
        Issuer::Listening(url) => {
            let scheme = url.split("://").next().unwrap_or("http");
            text(header::HOST).map(|host| format!("{scheme}://{host}"))
        }
    };
    here.and_then(|url| url.parse::<Url>().ok())
        .is_some_and(|url| url.origin() == origin)
}

fn form(door: &Door, status: StatusCode, code: &str, complaint: &str) -> Response {
    let complaint = match complaint {
        "" => String::new(),
        words => format!("<p class=\"no\" role=\"alert\">{}</p>", escaped(words)),
    };
    let operator = "An operator of the hub can approve it: <code>lockstep-hub devices approve CODE --user USER</code>";
    if !door.identity.settings.devices_approve {
        return page(status, &format!("{complaint}<p>{operator}</p>"));
    }
    let or_provider = if door.identity.external.is_some() {
        ", or one of your identity provider"
    } else {
        ""
    };
    page(
        status,
        &format!(
            "{complaint}<p>A device asks to share your logins. Type the code that it shows, and paste an access token of a \
             device of yours that is enrolled already{or_provider}.</p>\
             <form method=\"post\" action=\"{PATH}\" autocomplete=\"off\">\
             <label>Code <input name=\"user_code\" value=\"{}\" maxlength=\"20\" required autocapitalize=\"characters\" \
             spellcheck=\"false\"></label>\
             <label>Access token <input name=\"token\" type=\"password\" required autocomplete=\"off\"></label>\
             <button class=\"yes\">Continue</button></form><p>None at hand? {operator}</p>",
            escaped(code)
        ),
    )
}

fn ask(waiting: &Waiting, user: &UserId, ticket: &str) -> String {
    let address = waiting
        .address
        .map_or_else(|| "unknown".into(), |address| address.to_string());
    let rows = [
        ("Code", waiting.user_code.clone()),
        ("Calls itself", waiting.name.clone()),
        ("Kind", waiting.kind.to_string()),
        ("Asked from", address),
        ("Seconds ago", waiting.age.to_string()),
        ("Will share the logins of", user.to_string()),
    ];
    let rows: String = rows
        .iter()
        .map(|(term, value)| format!("<dt>{term}</dt><dd>{}</dd>", escaped(value)))
        .collect();
    format!(
        "<p>Is this your device, and does it show this code right now? If somebody sent you the code, say no.</p>\
         <dl>{rows}</dl><form method=\"post\" action=\"{PATH}\">\
         <input type=\"hidden\" name=\"ticket\" value=\"{}\">\
         <button class=\"yes\" name=\"action\" value=\"approve\">Yes, approve it</button>\
         <button name=\"action\" value=\"deny\">No</button></form>",
        escaped(ticket)
    )
}

fn told(status: StatusCode, class: &str, words: &str) -> Response {
    page(
        status,
        &format!("<p class=\"{class}\" role=\"status\">{}</p>", escaped(words)),
    )
}

fn page(status: StatusCode, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Approve a device</title><style>{STYLE}</style></head>\
         <body><h1>Approve a device</h1>{body}</body></html>"
    );
    let mut response = (status, Html(html)).into_response();
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With "no-referrer" a browser would send its own form with "Origin: null".
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Text as it stands in HTML and in its attributes.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

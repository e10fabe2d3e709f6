//! Misbehaviour on request.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::minted::{GrantId, RefreshClaims};

/// Faults that may wait at a time.
const MOST_FAULTS: usize = 1000;

/// A fault, as the control API takes it. Unknown fields are refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultSpec {
    /// `delay` `status` `lost_before` `lost_after` `hang` `garbage200` `invalid_client` `invalid_grant` `reshape`.
    pub kind: String,
    /// To how many calls it happens; 1 by default, 0 means until taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// How many matching calls go unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// Only calls that present a refresh token of this grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Only calls that present the refresh token of this generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// `before` or `after` the server commits. By default: `after` for `garbage200` and `reshape`, else `before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// `delay`: milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// `status`: the HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// `status`: the value of `Retry-After`, in seconds or as a date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Value>,
    /// `status`: `json` (default), `html` or `empty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<FaultBody>,
    /// `status` with a JSON body: its `error`; `server_error` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `status`: the value of `Location`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// `reshape`: fields left out of the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omit: Vec<String>,
    /// `reshape`: fields put into the answer.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub set: Map<String, Value>,
}

/// On which side of the commit a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Nothing is committed yet (and, unless it is only a delay, never will be).
    Before,
    /// The rotation has happened.
    After,
}

/// What stands in the body of an error answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultBody {
    /// An RFC 6749 section 5.2 error.
    #[default]
    Json,
    /// A web page, as proxies like to send.
    Html,
    /// Nothing.
    Empty,
}

/// Why a fault was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The kind is not known.
    #[error(
        "unknown kind {0:?}: delay, status, lost_before, lost_after, hang, garbage200, invalid_client, invalid_grant, reshape"
    )]
    Kind(String),
    /// A field that this kind needs is missing.
    #[error("{kind} needs {field:?}")]
    Missing {
        /// The kind.
        kind: &'static str,
        /// The field.
        field: &'static str,
    },
    /// No grant has this name.
    #[error("{0:?} is not the name of a grant")]
    Grant(String),
    /// The status is not one of HTTP.
    #[error("{0} is not a status that can be sent")]
    Status(u16),
    /// Too many faults wait.
    #[error("too many faults wait")]
    TooMany,
}

/// What a call suffers beside any delay.
#[derive(Debug, Clone)]
pub(crate) enum Harm {
    /// The connection is dropped without a word.
    Lost,
    /// The answer never comes.
    Hang,
    /// Another answer than the true one.
    Status {
        status: u16,
        retry_after: Option<String>,
        location: Option<String>,
        body: FaultBody,
        error: String,
    },
    /// 200 with a body that is not a token answer.
    Garbage,
    /// The true answer with fields missing or changed.
    Reshape { omit: Vec<String>, set: Map<String, Value> },
}

#[derive(Debug, Clone)]
enum Kind {
    Delay(Duration),
    Harm(Harm),
}

#[derive(Debug)]
struct Fault {
    name: &'static str,
    kind: Kind,
    when: When,
    /// `None`: until taken back.
    left: Option<u32>,
    skip: u32,
    grant: Option<GrantId>,
    generation: Option<u32>,
}

/// What is done to one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) name: Option<&'static str>,
    pub(crate) delay: Option<(When, Duration)>,
    pub(crate) harm: Option<(When, Harm)>,
}

/// The faults that wait for a call.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, spec: FaultSpec) -> Result<(), FaultError> {
        if self.0.len() == MOST_FAULTS {
            return Err(FaultError::TooMany);
        }
        self.0.push(Fault::from_spec(spec)?);
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes for one call the first delay and the first harm that match it.
    pub(crate) fn plan(&mut self, token: Option<RefreshClaims>) -> Plan {
        let mut plan = Plan::default();
        if self.0.is_empty() {
            return plan;
        }
        for fault in &mut self.0 {
            let taken = match fault.kind {
                Kind::Delay(_) => plan.delay.is_some(),
                Kind::Harm(_) => plan.harm.is_some(),
            };
            if taken || !fault.matches(token) || !fault.take() {
                continue;
            }
            match &fault.kind {
                Kind::Delay(span) => plan.delay = Some((fault.when, *span)),
                Kind::Harm(harm) => plan.harm = Some((fault.when, harm.clone())),
            }
            if plan.name.is_none() || matches!(fault.kind, Kind::Harm(_)) {
                plan.name = Some(fault.name);
            }
        }
        self.0.retain(|fault| fault.left != Some(0));
        plan
    }
}

impl Fault {
    fn from_spec(spec: FaultSpec) -> Result<Self, FaultError> {
        let (name, kind, usual) = kind(&spec)?;
        let grant = match spec.grant {
            Some(name) => Some(name.parse().map_err(|()| FaultError::Grant(name))?),
            None => None,
        };
        Ok(Self {
            name,
            kind,
            when: match name {
                "lost_before" | "lost_after" => usual,
                _ => spec.when.unwrap_or(usual),
            },
            left: match spec.count {
                Some(0) => None,
                Some(count) => Some(count),
                None => Some(1),
            },
            skip: spec.skip,
            grant,
            generation: spec.generation,
        })
    }

    fn matches(&self, token: Option<RefreshClaims>) -> bool {
        self.grant.is_none_or(|grant| token.is_some_and(|t| t.grant == grant))
            && self
                .generation
                .is_none_or(|generation| token.is_some_and(|t| t.generation == generation))
    }

    fn take(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

fn kind(spec: &FaultSpec) -> Result<(&'static str, Kind, When), FaultError> {
    let refusal = |status, error: &str| {
        Kind::Harm(Harm::Status {
            status,
            retry_after: None,
            location: None,
            body: FaultBody::Json,
            error: error.into(),
        })
    };
    Ok(match spec.kind.as_str() {
        "delay" => {
            let ms = spec.ms.ok_or(FaultError::Missing {
                kind: "delay",
                field: "ms",
            })?;
            ("delay", Kind::Delay(Duration::from_millis(ms)), When::Before)
        }
        "status" => ("status", Kind::Harm(status(spec)?), When::Before),
        "lost_before" => ("lost_before", Kind::Harm(Harm::Lost), When::Before),
        "lost_after" => ("lost_after", Kind::Harm(Harm::Lost), When::After),
        "hang" => ("hang", Kind::Harm(Harm::Hang), When::Before),
        "garbage200" => ("garbage200", Kind::Harm(Harm::Garbage), When::After),
        "invalid_client" => ("invalid_client", refusal(401, "invalid_client"), When::Before),
        "invalid_grant" => ("invalid_grant", refusal(400, "invalid_grant"), When::Before),
        "reshape" => (
            "reshape",
            Kind::Harm(Harm::Reshape {
                omit: spec.omit.clone(),
                set: spec.set.clone(),
            }),
            When::After,
        ),
        other => return Err(FaultError::Kind(other.into())),
    })
}

fn status(spec: &FaultSpec) -> Result<Harm, FaultError> {
    let status = spec.status.ok_or(FaultError::Missing {
        kind: "status",
        field: "status",
    })?;
    if !(200..=599).contains(&status) {
        return Err(FaultError::Status(status));
    }
    Ok(Harm::Status {
        status,
        retry_after: spec.retry_after.as_ref().map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }),
        location: spec.location.clone(),
        body: spec.body.unwrap_or_default(),
        error: spec.error.clone().unwrap_or_else(|| "server_error".into()),
    })
}

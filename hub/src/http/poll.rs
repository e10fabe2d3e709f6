//! `GET /v1/tokens`: the same state for networks that block WebSockets. Stateless: any node may answer any poll.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use lockstep_engine::time::{Mono, Now};
use lockstep_protocol::{Code, Cursor, DeviceId, Seq, frame::Resume, limits::MAX_POLL_WAIT};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::{auth::Caller, problem::Problem};
use crate::{
    app::Hub,
    clock,
    session::hello::{held, missing},
    user::{Board, Entry, Poller, Shows, User},
};

/// `wait` when the device does not say, in seconds.
const USUAL_WAIT: u64 = 25;

/// About how many bytes one answer may bring. Clients bound what they read, and what is not read yet is held here.
const MOST_ANSWER: usize = 4 * 1024 * 1024;

/// The query.
#[derive(Deserialize)]
pub(super) struct PollQuery {
    after: Option<String>,
    wait: Option<f64>,
}

/// What a device says it holds.
#[derive(Clone, Copy)]
struct Held {
    /// Whether it said anything.
    said: bool,
    seq: Option<Seq>,
}

/// Answers as soon as anything is newer than the cursor, else 204 after `wait`.
pub(super) async fn tokens(
    State(hub): State<Arc<Hub>>,
    Caller(principal): Caller,
    query: Result<Query<PollQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|_| Problem::new(Code::BadFrame, "wait is a number of seconds"))?;
    let user = hub.user(&principal.user).await?;
    let until = Instant::now() + hold(query.wait);
    let turn = take_turn(&user, principal.device);
    hub.arrived(&user, principal.device);
    let known = hub.catch_up(&user, query.after.as_deref()).await;
    loop {
        // Registered before the state is read, so that no change falls between.
        let mut changed = pin!(user.changed.notified());
        changed.as_mut().enable();
        let now = clock::now();
        let board = newest(&hub, &user, now);
        let epoch = hub.epoch();
        let held = Held {
            said: query.after.is_some(),
            seq: held(query.after.as_deref(), epoch, board.seq, known),
        };
        // Forgotten: the store has a new lifetime, of which this user's board knows nothing.
        let ends = hub.leaving.is_cancelled() || !hub.users.holds(&user);
        if !is_my_turn(&user, principal.device, turn, held, now.mono) || ends {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        if hub.identity.is_revoked(principal.device) {
            return Err(Problem::new(Code::Unauthorized, "the device is revoked"));
        }
        if !held.said || held.seq.is_none_or(|seq| seq < board.seq) {
            let (news, upto) = page(&board, held.seq, MOST_ANSWER);
            sent(&user, principal.device, turn, upto);
            let cursor = Cursor { epoch, seq: upto };
            return Ok(answer(news, resume(&board, held.seq), cursor, now));
        }
        tokio::select! {
            () = changed => {}
            () = hub.leaving.cancelled() => {}
            () = sleep_until(until) => {
                is_my_turn(&user, principal.device, turn, held, clock::mono());
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
        }
    }
}

/// How long a poll is held: as asked, at most 55 s, up to a fifth shorter, so that polls do not march in step.
fn hold(asked: Option<f64>) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "both are small")]
    let (usual, most) = (USUAL_WAIT as f64, MAX_POLL_WAIT as f64);
    let asked = asked.filter(|wait| !wait.is_nan()).unwrap_or(usual).clamp(0.0, most);
    Duration::from_secs_f64(asked * rand::random_range(0.8..=1.0))
}

/// This poll is the device's newest: an older one that still waits ends.
fn take_turn(user: &User, device: DeviceId) -> u64 {
    let turn = {
        let mut inner = user.lock();
        let now = clock::mono();
        let fresh = Poller {
            polled_at: now,
            turn: 0,
            acked: Seq(0),
            sent: Seq(0),
        };
        let poller = inner.pollers.entry(device).or_insert(fresh);
        poller.turn += 1;
        poller.polled_at = now;
        let turn = poller.turn;
        inner.idle_since = None;
        turn
    };
    if turn > 1 {
        user.changed.notify_waiters();
    }
    turn
}

/// Notes that the device is still there and what it holds. False: a newer poll of it has come.
fn is_my_turn(user: &User, device: DeviceId, turn: u64, held: Held, now: Mono) -> bool {
    let mut inner = user.lock();
    let Some(poller) = inner.pollers.get_mut(&device) else {
        // Revoked meanwhile, or its user's pollers were swept while this poll waited.
        return true;
    };
    poller.polled_at = now;
    poller.acked = poller.acked.max(held.seq.unwrap_or_default());
    poller.turn == turn
}

fn sent(user: &User, device: DeviceId, turn: u64, seq: Seq) {
    if let Some(poller) = user.lock().pollers.get_mut(&device)
        && poller.turn == turn
    {
        poller.sent = seq;
    }
}

fn newest(hub: &Hub, user: &User, now: Now) -> Arc<Board> {
    let mut inner = user.lock();
    hub.bury(&mut inner, now);
    Arc::clone(&inner.board)
}

const fn resume(board: &Board, held: Option<Seq>) -> Resume {
    match held {
        None => Resume::Reset,
        Some(seq) if seq.0 == board.seq.0 => Resume::Uptodate,
        Some(_) => Resume::Delta,
    }
}

/// What is missing, in order of seq, and up to which seq that is everything: the board's, unless it comes to more than
/// `most` bytes. Then the next poll, which is answered at once, goes on from there.
fn page(board: &Board, held: Option<Seq>, most: usize) -> (Vec<&Entry>, Seq) {
    let mut news: Vec<&Entry> = Vec::new();
    let mut bytes = 0;
    for entry in missing(board, held) {
        bytes += entry.frames().len();
        if let Some(last) = news.last()
            && bytes > most
            && last.seq < entry.seq
        {
            let upto = last.seq;
            return (news, upto);
        }
        news.push(entry);
    }
    (news, board.seq)
}

/// Put together from frames that are encoded already: they go out as they would over a WebSocket.
fn answer(news: Vec<&Entry>, resume: Resume, cursor: Cursor, now: Now) -> Response {
    let (mut tokens, mut statuses) = (Vec::new(), Vec::new());
    for entry in news {
        match entry.shows {
            Shows::Token => tokens.push(entry.json()),
            Shows::Status | Shows::Gone => statuses.push(entry.json()),
        }
        statuses.extend(entry.word());
    }
    let body = format!(
        r#"{{"epoch":"{}","time":{},"cursor":"{cursor}","resume":{},"tokens":[{}],"statuses":[{}]}}"#,
        cursor.epoch,
        now.unix.seconds(),
        lockstep_protocol::encode(&resume),
        tokens.join(","),
        statuses.join(","),
    );
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::sample::{face, grant, record};

    #[test]
    fn a_large_state_comes_in_pages_that_leave_nothing_out() {
        let user = User::new("alice".parse().unwrap());
        let grants: Vec<_> = (1..=9)
            .map(|seq| (grant(&format!("a/{seq}")), *record(seq, seq)))
            .collect();
        user.lock().show_all(Seq(12), &grants, &face());
        let board = user.board();
        let each = board.entries()[0].frames().len();
        let (mut held, mut pages) = (None, Vec::new());
        while held.is_none_or(|held| held < board.seq) {
            let (news, upto) = page(&board, held, each * 4 + 1);
            pages.push((news.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), upto.0));
            held = Some(upto);
        }
        assert_eq!(pages, [(vec![1, 2, 3, 4], 4), (vec![5, 6, 7, 8], 8), (vec![9], 12)]);
        assert_eq!(page(&board, None, 1).1, Seq(1), "whatever its size, something comes");
    }

    #[test]
    fn a_poll_is_held_as_asked_within_bounds_and_not_in_step_with_others() {
        let cases = [
            (None, 25.0),
            (Some(0.0), 0.0),
            (Some(-7.0), 0.0),
            (Some(10.0), 10.0),
            (Some(55.0), 55.0),
            (Some(1e9), 55.0),
            (Some(f64::INFINITY), 55.0),
            (Some(f64::NAN), 25.0),
        ];
        for (asked, most) in cases {
            let mut held: Vec<f64> = (0..200).map(|_| hold(asked).as_secs_f64()).collect();
            held.sort_by(f64::total_cmp);
            assert!(
                held.iter().all(|held| (most * 0.8..=most).contains(held)),
                "{asked:?}: {held:?}"
            );
            assert!(
                most < 1.0 || held[199] - held[0] > most / 20.0,
                "{asked:?}: all in step"
            );
        }
    }
}

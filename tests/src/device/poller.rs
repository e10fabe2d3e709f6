//! A follower on long-poll: no connection that stands, any node may answer.

use std::{net::SocketAddr, sync::Arc, sync::Mutex, time::Duration};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    Enrolled,
    follower::{AGAIN_AFTER, Diary, lock},
};
use crate::admin::{Answer, http};

/// How long an answer may take: longer than the poll itself.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn poll(hubs: Vec<SocketAddr>, device: Enrolled, diary: Arc<Mutex<Diary>>) {
    for hub in hubs.iter().cycle() {
        // Stays with a hub that answers; goes on to the next one otherwise.
        while ask(*hub, &device, &diary).await {}
        sleep(AGAIN_AFTER).await;
    }
}

async fn ask(hub: SocketAddr, device: &Enrolled, diary: &Mutex<Diary>) -> bool {
    let cursor = lock(diary).cursor.clone();
    let after = cursor.map_or_else(String::new, |cursor| format!("&after={cursor}"));
    let request = http()
        .get(format!("http://{hub}/v1/tokens?wait=3{after}"))
        .timeout(PATIENCE)
        .bearer_auth(&device.access_token);
    match Answer::try_to(request).await {
        Ok(answer) if answer.status == 200 => {
            take(&mut lock(diary), &answer.body);
            true
        }
        Ok(answer) => answer.status == 204,
        Err(_) => false,
    }
}

/// An answer as the frames that a session would have brought.
fn take(diary: &mut Diary, answer: &Value) {
    diary.take(json!({"type": "welcome", "epoch": answer["epoch"], "resume": answer["resume"]}));
    let part = |key: &str, kind: &str| {
        let frames = answer[key].as_array().cloned().unwrap_or_default();
        frames.into_iter().map({
            let kind = kind.to_owned();
            move |mut frame| {
                frame["type"] = kind.clone().into();
                frame
            }
        })
    };
    let mut frames: Vec<Value> = part("tokens", "token").chain(part("statuses", "status")).collect();
    frames.sort_by_key(|frame| frame["seq"].as_u64());
    frames.into_iter().for_each(|frame| diary.take(frame));
    diary.take(json!({"type": "synced", "cursor": answer["cursor"]}));
}

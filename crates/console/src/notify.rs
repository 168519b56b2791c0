//! Webhooks: who decides hears that something waits, and what became of it. A message has the request's name, who asks from where, which
//! columns, and a link; never a purpose or a condition, which can name the people that the data is about.
//!
//! Signed as Standard Webhooks says (`webhook-id`, `webhook-timestamp`, `webhook-signature: v1,…`), so that a receiver knows its sender,
//! drops what it has already, and what is old. Retried for an hour and a half; what the process had not delivered when it ended is gone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use ringfence_control::{State, Stored};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::Desk;

/// How long after a failure it is tried again, in seconds.
const AGAIN: [u64; 6] = [1, 5, 30, 300, 1500, 3600];
/// The most messages that wait for one receiver.
const MOST: usize = 1000;

/// What a receiver understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `{"type": …, "timestamp": …, "data": …}` (Standard Webhooks).
    #[default]
    Generic,
    /// Slack's incoming webhooks, and what is like them (Mattermost).
    Slack,
    /// Microsoft Teams: an adaptive card.
    Teams,
}

/// Who is told.
#[derive(Clone)]
pub struct Receiver {
    /// Where.
    pub url: String,
    /// How.
    pub dialect: Dialect,
    /// What signs the messages.
    pub secret: Vec<u8>,
    /// Makes the connections.
    pub agent: ureq::Agent,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    /// The request and its state: the same for the same event, at whatever gateway.
    id: String,
    state: &'static str,
    request: String,
    text: String,
    url: String,
    time: u64,
}

impl Message {
    fn new(stored: &Stored, origin: &str, time: u64) -> Self {
        let r = &stored.request;
        let columns: Vec<&str> = r.columns.iter().map(String::as_str).collect();
        let what = format!(
            "{} in {} asks for {} of {} ({})",
            r.requester,
            r.location,
            columns.join(", "),
            r.table,
            r.store
        );
        let state = stored.state.word();
        let said = match stored.state {
            State::Pending => "waits for a decision",
            State::Granted => "is granted",
            State::Denied => "is denied",
            State::Revoked => "is revoked",
            State::Expired => "has expired",
        };
        Self {
            id: format!("{}-{state}", r.id),
            state,
            request: r.id.clone(),
            text: format!("{} {said}: {what}", r.id),
            url: format!("{origin}/requests/{}", r.id),
            time,
        }
    }

    fn body(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::Slack => {
                // What Slack would take for its own markup.
                let text = self.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                json!({ "text": format!("{text} <{}|Open>", self.url) })
            }
            Dialect::Teams => json!({ "type": "message", "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
                    "body": [{ "type": "TextBlock", "text": self.text, "wrap": true }],
                    "actions": [{ "type": "Action.OpenUrl", "title": "Open", "url": self.url }],
                },
            }] }),
            Dialect::Generic => json!({
                "type": format!("request.{}", self.state),
                "timestamp": ringfence_grants::request::rfc3339(self.time),
                "data": { "request": self.request, "state": self.state, "text": self.text, "url": self.url },
            }),
        }
    }
}

/// `v1,` and HMAC-SHA-256 over `id.timestamp.body`, in base64.
fn signature(secret: &[u8], id: &str, timestamp: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

impl Receiver {
    fn send(&self, message: &Message) -> Result<(), String> {
        let body = message.body(self.dialect).to_string();
        let now = ringfence_ledger::now_ms() / 1000;
        let sent = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", now.to_string())
            .header("webhook-signature", signature(&self.secret, &message.id, now, &body))
            .config()
            .http_status_as_error(false)
            .build()
            .send(body);
        // The address may be a secret itself: an error does not repeat it.
        match sent.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(format!("it answers with status {status}")),
            Err(_) => Err("it cannot be reached".to_owned()),
        }
    }

    /// Delivers what comes, one after the other, until nobody sends any more.
    fn run(&self, incoming: &std::sync::mpsc::Receiver<Message>) {
        let mut waiting: VecDeque<(Message, usize, Instant)> = VecDeque::new();
        loop {
            let next = waiting.iter().map(|(_, _, at)| *at).min();
            let pause =
                next.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
            match incoming.recv_timeout(pause) {
                Ok(message) if waiting.len() < MOST => waiting.push_back((message, 0, Instant::now())),
                Ok(_) => tracing::error!("a webhook's receiver is so far behind that a message is dropped"),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
            }
            let due = waiting.iter().position(|(_, _, at)| *at <= Instant::now());
            let Some((message, tries, _)) = due.and_then(|place| waiting.remove(place)) else { continue };
            if let Err(problem) = self.send(&message) {
                match AGAIN.get(tries) {
                    Some(seconds) => waiting.push_back((
                        message,
                        tries + 1,
                        Instant::now() + Duration::from_secs(*seconds),
                    )),
                    None => {
                        tracing::error!(message = %message.id, %problem, "a webhook's receiver was not told");
                    }
                }
            }
        }
    }
}

/// How far back it is looked for what has changed: longer than gateways' clocks differ, or one is busy.
const LOOK_BACK_MS: u64 = 3_600_000;

/// Tells the receivers of the configuration, from here on.
pub(crate) async fn follow(desk: Arc<Desk>) {
    let receivers = desk.config.webhooks.clone();
    if receivers.is_empty() {
        return;
    }
    let senders: Vec<_> = receivers
        .into_iter()
        .map(|receiver| {
            let (sender, incoming) = std::sync::mpsc::channel();
            let started = std::thread::Builder::new()
                .name("console-webhook".to_owned())
                .spawn(move || receiver.run(&incoming));
            if started.is_err() {
                tracing::error!("a webhook has no thread: its receiver is not told");
            }
            sender
        })
        .collect();
    let mut changes = desk.gateway.grants.changes();
    let mut known: Option<HashMap<String, State>> = None;
    loop {
        if let Ok(stored) = desk.gateway.control.since(desk.gateway.now().saturating_sub(LOOK_BACK_MS)).await
        {
            if let Some(known) = &known {
                for one in stored.iter().rev().filter(|s| known.get(&s.request.id) != Some(&s.state)) {
                    let message = Message::new(one, &desk.config.origin, desk.gateway.now());
                    for sender in &senders {
                        let _ = sender.send(message.clone());
                    }
                }
            }
            known = Some(stored.iter().map(|s| (s.request.id.clone(), s.state)).collect());
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::signature;

    #[test]
    fn a_signature_is_that_of_the_standard() {
        // The example of the Standard Webhooks libraries (secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw).
        let secret = base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        );
        let made = signature(
            &secret.unwrap_or_default(),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(made, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}

//! The usual cast: a provider, a hub, and users who hold `example/main`.

use serde_json::{Value, json};

use crate::{
    admin::{Admin, Answer, http},
    device::{Enrolled, Follower, Session},
    hub::Hub,
    provider::{Provider, Rules},
    settings::Settings,
};

/// The grant that every user of a scene holds. The provider knows it by the user's name.
pub const GRANT: &str = "example/main";

/// A provider and a hub that serves it.
pub struct Scene {
    /// The provider named `example`.
    pub provider: Provider,
    /// The hub.
    pub hub: Hub,
    /// Its admin API.
    pub admin: Admin,
}

impl Scene {
    /// With the usual settings.
    pub async fn new() -> Self {
        Self::with(Rules::default(), |settings| settings).await
    }

    /// With settings of the test's own.
    pub async fn set(change: impl FnOnce(Settings) -> Settings) -> Self {
        Self::with(Rules::default(), change).await
    }

    /// With a provider and settings of the test's own.
    pub async fn with(rules: Rules, change: impl FnOnce(Settings) -> Settings) -> Self {
        let provider = Provider::with(rules).await;
        let hub = Hub::start(change(Settings::new(&provider.token_endpoint()))).await;
        let admin = hub.admin();
        Self { provider, hub, admin }
    }

    /// A user with a login at the provider and one device.
    ///
    /// # Panics
    /// When the hub does not take the login as version 1.
    pub async fn user(&self, user: &str) -> Enrolled {
        assert_eq!(self.log_in(user).await, 1);
        self.admin.enrol(user).await
    }

    /// The same for a user whose name was used before: any version will do.
    pub async fn user_again(&self, user: &str) -> Enrolled {
        self.log_in(user).await;
        self.admin.enrol(user).await
    }

    /// A user with a login and a connected device.
    pub async fn session(&self, user: &str) -> Session {
        let device = self.user(user).await;
        Session::fresh(&self.hub, &device).await
    }

    /// A (new) login of a user, brought to the hub. Returns the version.
    ///
    /// # Panics
    /// When the hub does not take it.
    pub async fn log_in(&self, user: &str) -> u64 {
        let pair = self.provider.login(user);
        let answer = self.admin.login(user, GRANT, &pair.login()).await.expect(200);
        answer["version"]
            .as_u64()
            .unwrap_or_else(|| panic!("a version in {answer}"))
    }

    /// Starts `count` devices of a user that follow by themselves.
    pub async fn followers(&self, user: &str, count: usize) -> Vec<Follower> {
        let mut followers = Vec::new();
        for _ in 0..count {
            followers.push(Follower::start(self.hub.listen, self.admin.enrol(user).await));
        }
        followers
    }

    /// `POST …/refresh` as a device does over HTTP.
    pub async fn post_refresh(&self, device: &Enrolled, grant: &str, rejected_version: u64) -> Answer {
        let request = http().post(self.hub.url(&format!("/v1/grants/{grant}/refresh")));
        let body = json!({"rejected_version": rejected_version});
        Answer::to(request.bearer_auth(&device.access_token).json(&body)).await
    }

    /// `GET …/token` as a device does over HTTP.
    pub async fn get_token(&self, device: &Enrolled, grant: &str, query: &str) -> Answer {
        let request = http().get(self.hub.url(&format!("/v1/grants/{grant}/token{query}")));
        Answer::to(request.bearer_auth(&device.access_token)).await
    }

    /// `GET /v1/tokens` as a device does over HTTP.
    pub async fn poll(&self, device: &Enrolled, query: &str) -> Answer {
        let request = http().get(self.hub.url(&format!("/v1/tokens{query}")));
        Answer::to(request.bearer_auth(&device.access_token)).await
    }

    /// `POST /oauth/token` with a refresh token, as a form.
    pub async fn oauth_token(&self, refresh_token: &str) -> Answer {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        Answer::to(http().post(self.hub.url("/oauth/token")).form(&form)).await
    }

    /// The admin's view of a user's `example/main`.
    pub async fn grant(&self, user: &str) -> Value {
        self.admin.grant(user, GRANT).await
    }
}

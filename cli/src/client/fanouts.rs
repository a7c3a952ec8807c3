//! One command on many clusters.

use invoke_protocol::api;
use invoke_protocol::fanout::{
    FanOut, FanOutList, FanOutPlan, FanOutQuery, FanOutSpec, FanOutsQuery, RetryFailedRequest,
};
use invoke_protocol::id::FanOutId;
use invoke_protocol::job::CancelRequest;
use reqwest::{Method, RequestBuilder};
use uuid::Uuid;

use super::{Client, Error};

impl Client {
    /// What would become of a fan-out if it were submitted now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn plan_fanout(&self, spec: &FanOutSpec) -> Result<FanOutPlan, Error> {
        let request = self.request(Method::POST, api::FANOUT_PLAN);
        self.answer(request.json(spec)).await
    }

    /// Submits a fan-out. The same key with the same spec is the same fan-out, however often it is sent.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn submit_fanout(&self, spec: &FanOutSpec, key: Uuid) -> Result<FanOut, Error> {
        let request = self
            .request(Method::POST, api::FANOUTS)
            .header(api::IDEMPOTENCY_KEY, key.hyphenated().to_string());
        self.answer(request.json(spec)).await
    }

    /// The fan-outs, the newest first.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fanouts(&self, query: &FanOutsQuery) -> Result<FanOutList, Error> {
        let request = self.request(Method::GET, api::FANOUTS);
        self.answer(request.query(query)).await
    }

    /// One fan-out, at once or when there is news of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fanout(&self, id: FanOutId, query: &FanOutQuery) -> Result<FanOut, Error> {
        let request = self.fanout_request(Method::GET, api::FANOUT, id);
        self.answer(request.query(query)).await
    }

    /// Asks for all of it to be stopped. To ask again changes nothing, or shortens the grace.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cancel_fanout(&self, id: FanOutId, how: CancelRequest) -> Result<FanOut, Error> {
        let request = self.fanout_request(Method::POST, api::FANOUT_CANCEL, id);
        self.answer(request.json(&how)).await
    }

    /// Lets one go on that has stopped.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn resume_fanout(&self, id: FanOutId) -> Result<FanOut, Error> {
        self.answer(self.fanout_request(Method::POST, api::FANOUT_RESUME, id))
            .await
    }

    /// Lets one go on, with another attempt for what has failed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn retry_fanout(
        &self,
        id: FanOutId,
        what: RetryFailedRequest,
    ) -> Result<FanOut, Error> {
        let request = self.fanout_request(Method::POST, api::FANOUT_RETRY_FAILED, id);
        self.answer(request.json(&what)).await
    }

    fn fanout_request(&self, method: Method, path: &str, id: FanOutId) -> RequestBuilder {
        self.request(method, &path.replace("{id}", &id.to_string()))
    }
}

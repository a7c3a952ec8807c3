//! What goes up: files before their job is submitted, and what its command reads.

use invoke_protocol::api::{self, FilesUploadQuery, Limits, StdinAck, StdinQuery, UploadedFiles};
use invoke_protocol::digest::Sha256;
use invoke_protocol::id::JobId;
use invoke_protocol::problem::ProblemCode;
use reqwest::{Method, RequestBuilder};

use super::{Client, Error};

impl Client {
    /// What the dispatcher takes and keeps.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn limits(&self) -> Result<Limits, Error> {
        self.answer(self.request(Method::GET, api::LIMITS)).await
    }

    /// How much of an archive is there; `None` if nothing is.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn uploaded(&self, archive: Sha256) -> Result<Option<UploadedFiles>, Error> {
        let request = self.files_request(Method::GET, archive);
        match self.answer(request).await {
            Ok(uploaded) => Ok(Some(uploaded)),
            Err(error) if error.code() == Some(ProblemCode::FilesNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Uploads a piece of an archive. What is there already is passed over, so it may be sent again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn upload(
        &self,
        archive: Sha256,
        place: &FilesUploadQuery,
        piece: Vec<u8>,
    ) -> Result<UploadedFiles, Error> {
        let request = self.files_request(Method::PUT, archive).query(place);
        self.answer(request.body(piece)).await
    }

    /// Sends a command the next bytes that it is to read. What was sent before is passed over, so it may
    /// be sent again.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send_stdin(
        &self,
        id: JobId,
        place: &StdinQuery,
        piece: Vec<u8>,
    ) -> Result<StdinAck, Error> {
        let request = self.job_request(Method::PUT, api::JOB_STDIN, id);
        self.answer(request.query(place).body(piece)).await
    }

    fn files_request(&self, method: Method, archive: Sha256) -> RequestBuilder {
        self.request(
            method,
            &api::FILES.replace("{sha256}", &archive.to_string()),
        )
    }
}

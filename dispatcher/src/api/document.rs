//! What the OpenAPI document says besides the endpoints themselves.

use invoke_protocol::api::JobEvent;
use invoke_protocol::problem::Problem;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi as _};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "invoke dispatcher",
        description = "Runs commands in private clusters. Every refusal is a problem document (RFC 9457) with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "jobs", description = "Submit commands, follow them, cancel them"),
        (name = "fanouts", description = "One command on many clusters"),
        (name = "files", description = "Upload what commands are to find"),
        (name = "clusters", description = "Where commands run"),
        (name = "runner", description = "What a cluster's runner says; not for people"),
    ),
    components(schemas(Problem, JobEvent)),
    modifiers(&Credentials),
)]
struct Document;

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut OpenApi) {
        let bearer = |description: &str| {
            let scheme = HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some(description));
            SecurityScheme::Http(scheme.build())
        };
        if let Some(components) = document.components.as_mut() {
            components.add_security_scheme("api_token", bearer("An API token"));
            components.add_security_scheme(
                "runner_token",
                bearer("A JWT that the runner signs with its cluster's key (EdDSA), good for five minutes"),
            );
        }
    }
}

/// The document without endpoints.
#[must_use]
pub fn base() -> OpenApi {
    Document::openapi()
}

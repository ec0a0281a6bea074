//! Which handler takes which request.

use super::error::ApiError;
use super::extract::BODY_MAX;
use super::state::Shared;
use super::{agents, events, locks, log, nodes, runs, shared, submit, tasks, upkeep};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::routing::{get, post};

/// The one router: over the Unix socket, and in process.
pub fn router(api: Shared) -> Router {
    Router::new()
        .route("/v1/tasks", get(tasks::list).post(submit::submit))
        .route("/v1/tasks/{id}", get(tasks::detail))
        .route("/v1/tasks/{id}/output", get(tasks::output))
        .route("/v1/tasks/{id}/log", get(log::log))
        .route("/v1/tasks/{id}/cancel", post(tasks::cancel))
        .route("/v1/tasks/{id}/retry", post(tasks::retry))
        .route("/v1/runs", post(runs::run))
        .route("/v1/events", get(events::events))
        .route("/v1/agents", get(agents::list))
        .route("/v1/agents/find", post(agents::find))
        .route("/v1/agents/{name}/drain", post(agents::drain))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{name}/drain", post(nodes::drain))
        .route("/v1/state", get(shared::list))
        .route("/v1/state/{key}", get(shared::get).post(shared::put))
        .route("/v1/state/{key}/delete", post(shared::delete))
        .route("/v1/state/{key}/history", get(shared::history))
        .route("/v1/state-changes", get(shared::changes))
        .route("/v1/state-policies", get(shared::policies).post(shared::set_policy))
        .route("/v1/locks", get(locks::list))
        .route("/v1/locks/{name}", post(locks::take))
        .route("/v1/locks/{name}/renew", post(locks::renew))
        .route("/v1/locks/{name}/release", post(locks::release))
        .route("/v1/health", get(upkeep::health))
        .route("/v1/prune", post(upkeep::prune))
        .route("/v1/backup", post(upkeep::backup))
        .route("/v1/export", post(upkeep::export))
        .route("/v1/audit", get(upkeep::audit))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(api)
}

async fn unknown(request: Request) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}", request.uri().path()))
        .hint("docs/api.md lists what there is")
}

async fn not_allowed(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    ApiError::invalid(format!("{method} is not possible at {path}")).status(405)
}

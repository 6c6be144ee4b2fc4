//! What can go wrong in the operator.

use crate::agent::AgentError;
use crate::backup::StoreError;
use crate::provider::ProviderError;
use graphplane_crds::conditions::reasons;

/// A failed reconcile, or an operator that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API refused or could not be reached.
    #[error("{action}: {source}")]
    Kube {
        /// What was attempted, on which object.
        action: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// Somebody else changed the object in between; the next pass sees the change.
    #[error("{0} was changed by somebody else in between")]
    Conflict(String),
    /// The provider refused or could not be reached.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// A node agent refused or could not be reached.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The object store refused or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object has no name or UID, which no API server makes.
    #[error("an object without {0} cannot be reconciled")]
    Incomplete(&'static str),
    /// A pass did not come to an end; the next one goes on.
    #[error("{0} took too many steps in one pass and goes on in the next")]
    Steps(String),
    /// This operator is not the leader any more.
    #[error("another operator holds the lease now; this one has stopped acting")]
    LostLeadership,
    /// The settings are wrong.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// The error of a call to the Kubernetes API.
    pub(crate) fn kube(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| match &source {
            kube::Error::Api(status) if status.is_conflict() => Self::Conflict(action),
            _ => Self::Kube {
                action,
                source: Box::new(source),
            },
        }
    }

    /// A word of a bounded set, for metrics.
    pub fn metric_label(&self) -> &'static str {
        match self {
            Self::Kube { .. } => "kube",
            Self::Conflict(_) => "conflict",
            Self::Provider(_) => "provider",
            Self::Agent(_) => "agent",
            Self::Store(_) => "object_store",
            Self::Incomplete(_) => "incomplete",
            Self::Steps(_) => "steps",
            Self::LostLeadership => "leadership",
            Self::Settings(_) => "settings",
        }
    }

    /// The reason that conditions give.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Agent(_) => reasons::AGENT_ERROR,
            Self::Provider(ProviderError::NoCapacity { .. }) => reasons::NO_CAPACITY,
            Self::Provider(_) | Self::Store(_) => reasons::PROVIDER_ERROR,
            _ => reasons::RECONCILING,
        }
    }

    /// Whether it passes by itself and is no news to anybody.
    pub(crate) fn is_routine(&self) -> bool {
        matches!(
            self,
            Self::Conflict(_) | Self::Steps(_) | Self::Agent(AgentError::Registering(_))
        )
    }
}

/// Whether an object was not found.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// Whether an object existed already.
pub(crate) fn already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

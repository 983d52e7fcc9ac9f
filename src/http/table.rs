//! A table of routes that can be read back. axum's router cannot say which routes it has; the document of the API, and
//! the test that the two agree, need to know.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::MethodRouter;

use super::App;
use crate::catalog::Scope;

/// What a route asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// That scope.
    Scope(Scope),
    /// Scope `admin`, bound to no organisation.
    Operator,
}

/// A route, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Upper case.
    pub(crate) method: &'static str,
    /// With axum's placeholders: `{name}` for one part of a path, `{*name}` for the rest of it.
    pub(crate) path: &'static str,
    /// What it asks of a key; none = it asks for no key.
    pub(crate) needs: Option<Needs>,
}

/// Routes that share what stands around them.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<Arc<App>>,
    list: Vec<Route>,
}

impl Routes {
    /// Adds a path with its methods.
    pub(crate) fn route(mut self, path: &'static str, methods: Methods) -> Self {
        let Methods { router, names, needs } = methods;
        self.list.extend(names.into_iter().map(|method| Route { method, path, needs }));
        Self { router: self.router.route(path, router), ..self }
    }

    /// The router of them, and what they are.
    pub(crate) fn into_parts(self) -> (Router<Arc<App>>, Vec<Route>) {
        (self.router, self.list)
    }
}

/// Methods of a path, each with its handler.
pub(crate) struct Methods {
    router: MethodRouter<Arc<App>>,
    names: Vec<&'static str>,
    needs: Option<Needs>,
}

impl Methods {
    /// The same methods behind a check.
    pub(crate) fn guarded(
        self,
        needs: Needs,
        guard: impl FnOnce(MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>>,
    ) -> Self {
        Self { router: guard(self.router), names: self.names, needs: Some(needs) }
    }
}

macro_rules! methods {
    ($($function:ident $name:literal),*) => {
        $(
            /// This method with that handler.
            pub(crate) fn $function<H: Handler<T, Arc<App>>, T: 'static>(handler: H) -> Methods {
                Methods { router: axum::routing::$function(handler), names: vec![$name], needs: None }
            }
        )*

        impl Methods {
            $(
                /// This method too.
                #[allow(dead_code, reason = "which of them come second depends on the table")]
                pub(crate) fn $function<H: Handler<T, Arc<App>>, T: 'static>(mut self, handler: H) -> Self {
                    self.names.push($name);
                    Self { router: self.router.$function(handler), ..self }
                }
            )*
        }
    };
}

methods!(get "GET", post "POST", put "PUT", patch "PATCH", delete "DELETE");

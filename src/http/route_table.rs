//! A route table that can be read back. axum's router cannot list its routes, which the API
//! document and the test that compares both need.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::MethodRouter;

use crate::http::route::{Needs, Route};
use crate::http::state::App;

/// Routes that share their middleware.
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

    /// Returns the router and the list of the routes.
    pub(crate) fn into_parts(self) -> (Router<Arc<App>>, Vec<Route>) {
        (self.router, self.list)
    }
}

/// The methods of a path, each with its handler.
pub(crate) struct Methods {
    router: MethodRouter<Arc<App>>,
    names: Vec<&'static str>,
    needs: Option<Needs>,
}

impl Methods {
    /// Adds a check in front of the methods.
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
            /// Returns this method with a handler.
            pub(crate) fn $function<H: Handler<T, Arc<App>>, T: 'static>(handler: H) -> Methods {
                let router = axum::routing::$function(handler);
                Methods { router, names: vec![$name], needs: None }
            }
        )*

        impl Methods {
            $(
                /// Adds this method with a handler.
                #[allow(dead_code, reason = "which of them come second depends on the table")]
                pub(crate) fn $function<H: Handler<T, Arc<App>>, T: 'static>(
                    mut self,
                    handler: H,
                ) -> Self {
                    self.names.push($name);
                    Self { router: self.router.$function(handler), ..self }
                }
            )*
        }
    };
}

methods!(get "GET", post "POST", put "PUT", patch "PATCH", delete "DELETE");

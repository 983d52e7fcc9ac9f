//! Methods that DataFusion requires of each step, and that are the same for the steps here.

/// Implements the methods of `ExecutionPlan` that a step without expressions needs for its callers.
macro_rules! without_expressions {
    () => {
        fn apply_expressions(
            &self,
            _: &mut dyn FnMut(
                &Arc<dyn datafusion::physical_expr::PhysicalExpr>,
            ) -> Result<datafusion::common::tree_node::TreeNodeRecursion>,
        ) -> Result<datafusion::common::tree_node::TreeNodeRecursion> {
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        }

        fn with_new_children(
            self: Arc<Self>,
            children: Vec<Arc<dyn ExecutionPlan>>,
        ) -> Result<Arc<dyn ExecutionPlan>> {
            let mode = datafusion::physical_plan::ChildrenPropertiesMode::Recompute;
            self.replace_children(children, ReplaceChildrenOptions::new(mode))
        }
    };
}
pub(super) use without_expressions;

/// Implements the methods of `ExecutionPlan` about the children of a step with the field `input`,
/// which `with_input` replaces.
macro_rules! one_input {
    () => {
        fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
            vec![&self.input]
        }

        fn benefits_from_input_partitioning(&self) -> Vec<bool> {
            vec![false]
        }

        fn replace_children(
            self: Arc<Self>,
            mut children: Vec<Arc<dyn ExecutionPlan>>,
            _: ReplaceChildrenOptions,
        ) -> Result<Arc<dyn ExecutionPlan>> {
            match children.pop() {
                Some(input) => Ok(Arc::new(self.with_input(input))),
                None => Ok(self),
            }
        }
    };
}
pub(super) use one_input;

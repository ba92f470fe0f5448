//! One method for each command of the link, the same for both clients.

/// The methods of a client, made of its method `call`. The arguments are the parts in which clients
/// differ: `mut`, `async`, and `.await`.
macro_rules! command_methods {
    ([$($mut:tt)?] [$($async:tt)?] [$($await:tt)*]) => {
        /// Opens the pair of an instance, or replaces the access rules of an open one.
        ///
        /// # Errors
        /// fifogate rejects the command, or the link breaks before its answer.
        pub $($async)? fn add_workload(
            &$($mut)? self,
            instance: pb::WorkloadInstanceName,
            access: pb::ControlInterfaceAccess,
            owner: Owner,
        ) -> Result<(), CallError> {
            let (instance_name, access) = (Some(instance), Some(access));
            let Owner { uid, gid } = owner;
            let add = link::AddWorkload { instance_name, access, uid, gid };
            self.call(Content::AddWorkload(add)) $($await)*
        }

        /// Ends the session of an instance, and removes its pair.
        ///
        /// # Errors
        /// fifogate rejects the command, or the link breaks before its answer.
        pub $($async)? fn remove_workload(
            &$($mut)? self,
            instance: pb::WorkloadInstanceName,
        ) -> Result<(), CallError> {
            let instance_name = Some(instance);
            self.call(Content::RemoveWorkload(link::RemoveWorkload { instance_name })) $($await)*
        }

        /// Replaces the whole state; subscribers get an event with the difference.
        ///
        /// # Errors
        /// fifogate rejects the command, or the link breaks before its answer.
        pub $($async)? fn replace_state(
            &$($mut)? self,
            state: pb::CompleteState,
        ) -> Result<(), CallError> {
            let state = Some(state);
            self.call(Content::ReplaceState(link::ReplaceState { state })) $($await)*
        }

        /// Replaces the parts of the state named by `masks`.
        ///
        /// # Errors
        /// fifogate rejects the command, or the link breaks before its answer.
        pub $($async)? fn update_state(
            &$($mut)? self,
            new_state: pb::CompleteState,
            masks: Vec<String>,
        ) -> Result<(), CallError> {
            let update = link::UpdateState { new_state: Some(new_state), update_mask: masks };
            self.call(Content::UpdateState(update)) $($await)*
        }

        /// Sets execution states; `removed` deletes an entry.
        ///
        /// # Errors
        /// fifogate rejects the command, or the link breaks before its answer.
        pub $($async)? fn update_workload_states(
            &$($mut)? self,
            workload_states: Vec<pb::WorkloadState>,
        ) -> Result<(), CallError> {
            let update = link::UpdateWorkloadStates { workload_states };
            self.call(Content::UpdateWorkloadStates(update)) $($await)*
        }

        /// Sends a request of the agent itself, with all rights. Its responses are messages.
        ///
        /// # Errors
        /// fifogate rejects the command, or the link breaks before its answer.
        pub $($async)? fn request(
            &$($mut)? self,
            request: pb::Request,
        ) -> Result<(), CallError> {
            self.call(Content::Request(request)) $($await)*
        }

        /// Answers a forwarded request.
        ///
        /// # Errors
        /// fifogate rejects the command, or the link breaks before its answer.
        pub $($async)? fn respond(
            &$($mut)? self,
            instance: pb::WorkloadInstanceName,
            response: pb::Response,
        ) -> Result<(), CallError> {
            let (instance_name, response) = (Some(instance), Some(response));
            let forwarded = link::ForwardedResponse { instance_name, response };
            self.call(Content::Response(forwarded)) $($await)*
        }

        /// Reports a problem of the agent in fifogate's status; an empty reason ends it.
        ///
        /// # Errors
        /// The link breaks before the answer.
        pub $($async)? fn report_trouble(
            &$($mut)? self,
            reason: String,
        ) -> Result<(), CallError> {
            self.call(Content::Trouble(link::AgentTrouble { reason })) $($await)*
        }

        /// Ends fifogate.
        ///
        /// # Errors
        /// The link breaks before the answer.
        pub $($async)? fn shutdown(&$($mut)? self) -> Result<(), CallError> {
            self.call(Content::Shutdown(link::Shutdown {})) $($await)*
        }
    };
}

pub(super) use command_methods;

"""What Celery's users expect of configuration, serializers and routing, and which test shows that it is there.

A row that is otherwise here stands in docs/from-celery.md, and names words of its line there.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SHOWN: dict[str, str] = {
    # The app and its settings.
    "the app's constructor, keywords as settings": "sdk/test_config.py::test_the_constructor_wins_over_a_source_and_a_source_over_added_defaults",
    "@app.task, lazily": "sdk/test_app.py::test_a_declared_task_is_a_promise_until_it_is_used",
    "@shared_task": "sdk/test_app.py::test_a_shared_task_belongs_to_every_app_and_answers_for_the_current_one",
    "class-based tasks and register_task": "sdk/test_app.py::test_a_class_is_registered_by_its_place",
    "finalize and autofinalize": "sdk/test_app.py::test_without_autofinalize_a_task_cannot_be_used_before_finalize",
    "names of tasks": "sdk/test_app.py::test_the_main_module_is_called_by_the_apps_name",
    "config_from_object: class, object, mapping": "sdk/test_config.py::test_settings_come_from_classes_objects_and_mappings_by_either_spelling",
    "config_from_object: module by name": "sdk/test_config.py::test_settings_come_from_a_module_or_what_is_in_it",
    "config_from_object: namespace": "sdk/test_config.py::test_a_namespace_takes_names_that_begin_with_it_and_no_others",
    "config_from_envvar": "sdk/test_config.py::test_the_environment_may_name_the_module",
    "config_from_cmdline": "sdk/test_config.py::test_settings_come_from_arguments",
    "CELERY_CONFIG_MODULE and celeryconfig": "sdk/test_config.py::test_the_app_nobody_made_is_configured_by_celeryconfig_or_what_the_environment_names",
    "add_defaults": "sdk/test_config.py::test_the_constructor_wins_over_a_source_and_a_source_over_added_defaults",
    "old and new names, not mixed": "sdk/test_config.py::test_mixed_spellings_are_refused_with_what_to_rename",
    "a setting without meaning": "sdk/test_config.py::test_settings_of_celery_without_effect_are_noted_for_the_worker_with_the_reason",
    "an unknown setting": "sdk/test_config.py::test_a_typing_error_is_told_with_the_setting_that_was_meant",
    "conf.humanize, conf.table, bugreport": "sdk/test_config.py::test_secrets_are_masked_wherever_settings_are_shown",
    "conf.find_option, get_by_parts, value_set_for, without_defaults": "sdk/test_config.py::test_options_are_found_by_the_end_of_their_name",
    "autodiscover_tasks": "sdk/test_sources.py::test_tasks_are_discovered_when_a_worker_imports_its_modules",
    "on_configure, on_after_configure": "sdk/test_config.py::test_setting_does_not_configure_and_reading_does_once",
    "on_after_fork": "sdk/test_config.py::test_a_process_that_was_forked_is_told_to_the_apps",
    "task_annotations": "sdk/test_annotations.py::test_tasks_take_attributes_by_their_name_and_those_of_any",
    "timezone, enable_utc": "sdk/test_config.py::test_without_utc_times_are_the_machines_own",
    "app.either": "sdk/test_config.py::test_either_is_the_first_that_is_given_or_else_the_setting",
    "pydantic tasks": "sdk/test_models.py::test_a_dict_becomes_the_model_and_the_returned_model_a_dict",
    "app.loader": "sdk/test_loader.py::test_modules_of_tasks_are_imported_by_the_loader",
    "app.pool, app.producer_pool": "sdk/test_connection.py::test_what_pools_give_is_handed_to_calls",
    "app.oid, app.thread_oid": "sdk/test_app.py::test_an_app_has_an_id_and_each_thread_of_it_another",
    "send_task": "sdk/test_app.py::test_a_calls_options_win_over_the_task_and_the_task_over_settings",
    # Calling.
    "queue, exchange, routing_key at the call": "sdk/test_amqp.py::test_a_message_goes_to_every_queue_whose_binding_takes_it",
    "queue as a Queue": "sdk/test_amqp.py::test_a_queue_with_an_exchange_that_is_not_direct_is_reached_through_it",
    "options that change nothing": "sdk/test_amqp.py::test_options_that_need_no_saying_here_change_nothing",
    "serializer, compression at the call": "sdk/test_sending.py::test_the_calls_serializer_wins_over_the_tasks_and_that_over_the_settings",
    # Routing.
    "queues of their own accord, QueueNotFound": "sdk/test_amqp.py::test_a_queue_nobody_configured_is_refused_where_the_setting_says_so",
    "task_queues": "sdk/test_amqp.py::test_queues_are_described_by_dicts_or_objects",
    "task_routes": "sdk/test_routes.py::test_names_globs_and_expressions_are_tried_in_this_order",
    "task_routes: functions, objects, paths": "sdk/test_routes.py::test_the_first_router_that_answers_counts",
    "task_default_queue, _exchange, _routing_key": "sdk/test_amqp.py::test_the_default_queue_is_bound_as_the_settings_say",
    "task_default_exchange_type": "sdk/test_amqp.py::test_a_default_exchange_that_is_no_direct_one_is_gone_through",
    "direct and fanout": "core/test_routes.py::test_direct_and_fanout_and_the_exchange_without_a_name",
    "topic": "core/test_routes.py::test_topics_fit_as_an_independent_matcher_says",
    "headers": "core/test_routes.py::test_headers_fit_all_or_any",
    "exchange to exchange": "core/test_routes.py::test_messages_go_from_exchange_to_exchange_and_round_in_no_circle",
    "alternate exchange": "core/test_routes.py::test_what_no_binding_takes_goes_to_the_alternate_exchange",
    "Queue and its arguments": "sdk/test_messaging.py::test_arguments_of_amqp_become_options_of_the_broker",
    "auto_delete": "core/test_routing.py::test_a_queue_that_goes_with_its_last_worker_takes_what_waits_along",
    "Broadcast": "sdk/test_amqp.py::test_a_broadcast_reaches_every_workers_queue",
    "worker_direct, what a worker takes from": "worker/test_loading.py::test_a_worker_takes_from_the_apps_queues_and_says_what_they_need",
    "app.amqp.queues, select, deselect, add": "sdk/test_amqp.py::test_workers_take_from_all_queues_or_from_those_selected",
    "declared with other properties": "core/test_routing.py::test_declaring_with_other_properties_is_a_conflict_that_names_them",
    "everything survives restarts": "core/test_routing.py::test_routes_survive_a_restart",
    # Serializers, compression.
    "json and its types": "sdk/test_serialization.py::test_types_beyond_json_are_written_as_kombu_does",
    "pickle, yaml, msgpack": "sdk/test_serialization.py::test_other_serializers_carry_the_same_values",
    "raw": "sdk/test_serialization.py::test_raw_is_bytes_as_they_are",
    "serialization.register": "sdk/test_serialization.py::test_kombus_register_takes_functions_of_text_and_unregister_takes_them_away",
    "register_type": "sdk/test_serialization.py::test_a_type_of_ones_own_comes_back_as_itself",
    "accept_content": "sdk/test_amqp.py::test_a_message_that_may_not_be_read_is_kept_and_runs_where_it_may",
    "result_accept_content": "sdk/test_amqp.py::test_a_result_in_another_serializer_is_refused_by_who_does_not_accept_it",
    "result_serializer, result_compression": "sdk/test_trace.py::test_results_are_written_as_the_settings_say_and_failures_as_data",
    "exceptions as data": "sdk/test_envelope.py::test_an_exception_of_a_module_that_is_not_loaded_is_imported_only_by_who_accepts_pickle",
    "compressors": "sdk/test_compression.py::test_what_is_packed_is_unpacked_alike",
    "message signing": "sdk/security/test_security.py::test_signed_calls_run_and_results_and_failures_are_signed_where_that_is_wished",
    "unsigned calls": "sdk/security/test_security.py::test_unsigned_calls_and_calls_of_strangers_become_dead_letters_and_nothing_of_them_is_decoded",
    "payload encryption": "sdk/test_sealing.py::test_the_broker_never_sees_arguments_results_failures_or_states",
    "rotation of keys": "sdk/test_sealing.py::test_the_first_key_seals_and_all_of_them_open",
    "a pickle payload, a 100-deep JSON, a bomb: the connection goes on": "sdk/test_refused.py::test_a_body_that_must_not_be_read_is_kept_as_a_dead_letter_and_its_neighbours_run",
    "a header of 1 MB, a NUL in a name: the connection goes on": "sdk/test_refused.py::test_a_call_that_cannot_be_meant_raises_and_the_connection_goes_on",
    "properties of AMQP's": "sdk/test_sending.py::test_properties_of_amqp_travel_with_the_call_and_the_task_sees_them",
    "a decompression bomb": "sdk/test_compression.py::test_a_bomb_is_refused_before_it_fills_the_memory",
}

OTHERWISE: dict[str, str] = {
    "broker_use_ssl and the settings of connections": "settings of the connection, its pool and its retries",
    "what is kombu's of app.pool, producer_pool": "hold kombu's connections and producers",
    "app.backend.client": "there is nothing of kombu's beneath",
    "a route and a call that names a queue": "win over the `queue` of the call",
    "mandatory, retry, retry_policy": "taken, and change nothing",
    "quorum queues": "quorum queues",
    "links that are encrypted": "broker_use_ssl",
    "result backends": "results go to a backend of your choice",
    "bootsteps": "bootsteps",
    "x-dead-letter-exchange": "x-dead-letter-exchange",
    "priorities": "priorities are RabbitMQ's",
}


@pytest.mark.parametrize("row", SHOWN)
def test_each_row_is_shown_by_a_test(row: str) -> None:
    name, _, test = SHOWN[row].partition("::")

    assert re.search(rf"^def {test}\(", (ROOT / "tests" / name).read_text(), re.MULTILINE)


@pytest.mark.parametrize("row", OTHERWISE)
def test_each_row_that_is_otherwise_is_told_to_who_comes_from_celery(row: str) -> None:
    page = (ROOT / "docs" / "from-celery.md").read_text()

    assert any(line.startswith("|") and OTHERWISE[row] in line for line in page.splitlines())

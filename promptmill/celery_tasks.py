"""The front door's Celery tasks, known to every worker however it is started: worker/app.py names this module."""

from celery import shared_task

from promptmill import manifest_tasks, shard_tasks

shared_task(name=shard_tasks.TASK_NAME, ignore_result=False, acks_late=True)(shard_tasks.pack_shard)
shared_task(name=manifest_tasks.TASK_NAME, ignore_result=False, acks_late=True)(manifest_tasks.look_at_images)

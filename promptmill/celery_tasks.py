"""The front door's Celery tasks, known to every worker however it is started: worker/app.py names this module."""

from celery import shared_task

from promptmill.shard_tasks import TASK_NAME, pack_shard

shared_task(name=TASK_NAME, ignore_result=False, acks_late=True)(pack_shard)

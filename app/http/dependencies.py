"""Dependencies of the routes, as annotated types."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from scpalm.app.auth.budgets import Budgets
from scpalm.app.auth.keys import ApiKey
from scpalm.app.service import Service
from scpalm.app.serving.upload_slots import client_of
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.registry import tasks


async def get_service(request: Request) -> Service:
    """The service of this application."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]


async def get_owner(request: Request) -> str:
    """The owner of the jobs: the name of the API key, or "" if the service has no keys."""
    owner: str = getattr(request.state, "owner", "")
    return owner


OwnerDep = Annotated[str, Depends(get_owner)]


async def get_viewer(request: Request) -> str | None:
    """Whose jobs the request may see: those of its owner; None is all, for an admin key."""
    key: ApiKey | None = request.state.api_key
    return None if key is not None and key.admin else await get_owner(request)


ViewerDep = Annotated[str | None, Depends(get_viewer)]


def upload_client(request: Request) -> str:
    """Whose share of the upload slots a request takes; see `client_of`."""
    key: ApiKey | None = request.state.api_key
    return client_of(None if key is None else key.name, "" if request.client is None else request.client.host)


def check_tasks(request: Request, spec: RequestSpec) -> None:
    """Check that the API key of the request, if any, may use the tasks of ``spec``. Raises ForbiddenError."""
    key: ApiKey | None = request.state.api_key
    if key is not None:
        key.check_tasks(spec.tasks, tasks())


async def charge_cells(request: Request, num_cells: int) -> None:
    """Charge accepted cells to the API key of the request, if any. Raises RateLimitError, NotReadyError."""
    budgets: Budgets = request.app.state.budgets
    key: ApiKey | None = request.state.api_key
    await budgets.charge_cells(key, num_cells)


async def refund_cells(request: Request, num_cells: int) -> None:
    """Give back what `charge_cells` took, because the work was not accepted."""
    budgets: Budgets = request.app.state.budgets
    await budgets.refund_cells(request.state.api_key, num_cells)

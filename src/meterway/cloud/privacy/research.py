"""Answers about many households: asked of the database day by day, judged by ``disclosure``, noted, and told."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from meterway.cloud.access.viewer import viewer
from meterway.cloud.context import Context
from meterway.cloud.privacy.answers import (
    ResearchAnswer,
    ResearchCell,
    ResearchQuery,
    days_of,
    property_named,
    refusal,
)
from meterway.cloud.privacy.disclosure import Judged, Reason, Rule, coarser, judge
from meterway.cloud.privacy.statements import note_answered, select_answered, select_day
from meterway.cloud.problems import HttpError
from meterway.cloud.store import Row
from meterway.core.errors import BadDataError
from meterway.core.properties import Kind, OperationalProperty

_KINDS = (Kind.REGISTER, Kind.INSTANTANEOUS, Kind.DEMAND)
_PLACES = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Research:
    """Answers, or says why not. Every question and its outcome stand in the audit log."""

    api: Context
    rule: Rule

    async def ask(self, query: ResearchQuery) -> ResearchAnswer:
        """Return sums in the cells that were asked for, or in longer ones.

        Raises:
            BadDataError: the query is not one.
            HttpError: 422, not even in the longest cells it may be told; 503, the database is away.
        """
        asked = _property_of(query)
        days = days_of(query, self.api.clock())
        reason: Reason = "too-few-households"
        bad_day = days[0]
        for step_s in coarser(query.step_s):
            judged: list[Judged] = []
            for day in days:
                one = await self._judge(asked, day, step_s)
                if one.refused is not None:
                    reason, bad_day = one.refused, day
                    break
                judged.append(one)
            else:
                return await self._tell(query, asked, days, step_s, judged)
        self.api.audit.note("read", "research", {"query": query, "refused": reason})
        raise HttpError(422, refusal(reason, bad_day, k=self.rule.k, share=self.rule.share), reason=reason)

    async def _judge(self, asked: OperationalProperty, day: datetime, step_s: int) -> Judged:
        statement = select_day(viewer.get(), asked, day, step_s, self.api.clock())
        rows = await self.api.fetch_all(statement)
        earlier = await self.api.fetch_all(select_answered(asked.property_id, day.date()))
        values = {row["household_key"]: _cells(row, 86_400 // step_s) for row in rows}
        return judge(values, self.rule, (frozenset(row["household_keys"]) for row in earlier))

    async def _tell(
        self,
        query: ResearchQuery,
        asked: OperationalProperty,
        days: list[datetime],
        step_s: int,
        judged: list[Judged],
    ) -> ResearchAnswer:
        sets = [list(each.households) for each in judged]
        await self.api.fetch_all(note_answered(asked.property_id, [day.date() for day in days], sets))
        self.api.audit.note("read", "research", {"query": query, "stepS": step_s})
        return ResearchAnswer(
            property_id=asked.property_id,
            unit=asked.unit,
            step_s=step_s,
            is_coarsened=step_s != query.step_s,
            content=tuple(
                ResearchCell(
                    start=day + timedelta(seconds=cell.number * step_s),
                    households=cell.households,
                    sum=cell.sum.quantize(_PLACES),
                    mean=(cell.sum / cell.households).quantize(_PLACES),
                )
                for day, one in zip(days, judged, strict=True)
                for cell in one.cells
            ),
        )


def _property_of(query: ResearchQuery) -> OperationalProperty:
    asked = property_named(query.property_name, "propertyName")
    if asked.kind not in _KINDS:
        raise BadDataError(
            f"{asked.property_id} is of the kind {asked.kind}; sums make sense of a register, a state or a demand.",
            reason="bad-query",
        )
    return asked


def _cells(row: Row, count: int) -> list[Decimal | None]:
    """Return a value for every cell of the day, None where there is none."""
    known = dict(zip(row["cells"], row["values"], strict=True))
    return [known.get(number) for number in range(count)]

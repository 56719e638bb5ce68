from enum import IntEnum
from dataclasses import dataclass
from collections.abc import Mapping, Sequence
from functools import cached_property
import numpy as np
class Kind(IntEnum):
    TEXT=0; SPACE=1; THINK=2; THINK_END=3; PARALLEL=4; PARALLEL_END=5; GOAL=6; GOAL_END=7; OUTLINE=8; OUTLINE_END=9; PATH=10; PATH_END=11; CONCLUSION=12; CONCLUSION_END=13
TAGS={("</" if k.name.endswith("_END") else "<")+k.name.removesuffix("_END").title()+">":k for k in Kind if k>1}
LAYOUT_VERSION=1
@dataclass(frozen=True)
class Vocabulary:
    tag_ids: Mapping[str,int]; space_ids: frozenset; size:int
    @cached_property
    def _table(self):
        t=np.zeros(self.size,np.uint8)
        t[list(self.space_ids)]=1
        for s,i in self.tag_ids.items(): t[i]=TAGS[s]
        return t
    def kinds(self, ids):
        a=np.asarray(ids,dtype=np.int64)
        out=np.zeros(len(a),np.uint8); ok=a<self.size; out[ok]=self._table[a[ok]]; return out
    def kind(self,i): return Kind(self._table[i])
    def id(self,t): return self.tag_ids[t]

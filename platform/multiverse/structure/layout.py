"""quick"""
from dataclasses import dataclass
import numpy as np
from multiverse.structure.tags import Kind
@dataclass(frozen=True)
class Span:
    start:int; end:int; fork:int; depth:int; closed:bool
@dataclass(frozen=True)
class Block:
    fork:int; fork_position:int; width:int; spans:tuple; end:int|None; depth:int
@dataclass(frozen=True)
class Layout:
    positions: np.ndarray; blocks: tuple; next_position:int
    @property
    def spans(self): return sorted((s for b in self.blocks for s in b.spans), key=lambda s:(s.depth,s.start))
    @property
    def guarded(self): return max((s.end for b in self.blocks for s in b.spans if s.start>s.fork), default=0)
    def hidden(self,q): return tuple((s.fork,s.start) for s in self.spans if s.start<=q<s.end and s.start>s.fork)
    @property
    def critical_path(self): return int(self.positions.max())+1 if len(self.positions) else 0
def layout(kinds):
    n=len(kinds); pos=np.zeros(n,np.int32); blocks=[]; stack=[]; p=0; state='text'; pend=0
    # frame: dict(fork,fpos,k,spans,maxend,start,state)
    i=0
    while i<n:
        k=int(kinds[i])
        if stack and stack[-1]['due']:
            f=stack[-1]
            if f['start'] is None: f['start']=i; p=f['fpos']
            if k==Kind.SPACE:
                pos[i]=p; p+=1; i+=1; continue
            if k==Kind.PATH:
                pos[i]=p; p+=1; i+=1; f['due']=False; continue
            if f['start']<i: f['spans'].append(Span(f['start'],i,f['fork'],len(stack),False))
            p=f['maxend']+1
            blocks.append(Block(f['fork'],f['fpos'],f['k'],tuple(f['spans']),i,len(stack))); stack.pop(); state='text'; continue
        if state=='goal':
            pos[i]=p; p+=1
            if k==Kind.OUTLINE: pend+=1
            elif k==Kind.GOAL_END:
                state='text'
                if pend: stack.append(dict(fork=i+1,fpos=p,k=pend,spans=[],maxend=p-1,start=None,due=True))
            i+=1; continue
        if state=='pending':
            if k==Kind.SPACE: pos[i]=p; p+=1; i+=1; continue
            if k==Kind.GOAL: state='goal'; pend=0; pos[i]=p; p+=1; i+=1; continue
            state='text'; continue
        if k==Kind.PARALLEL: state='pending'
        elif k==Kind.PATH_END and stack:
            f=stack[-1]; pos[i]=p; f['maxend']=max(f['maxend'],p); f['spans'].append(Span(f['start'],i+1,f['fork'],len(stack),True)); f['start']=None; i+=1
            if len(f['spans'])==f['k']:
                blocks.append(Block(f['fork'],f['fpos'],f['k'],tuple(f['spans']),i,len(stack))); stack.pop(); p=f['maxend']+1
            else: f['due']=True; p=f['fpos']
            continue
        pos[i]=p; p+=1; i+=1
    nxt=p
    if stack and stack[-1]['due'] and stack[-1]['start'] is None: nxt=stack[-1]['fpos']
    for d,f in enumerate(stack):
        if f['start'] is not None: f['spans'].append(Span(f['start'],n,f['fork'],d+1,False))
        blocks.append(Block(f['fork'],f['fpos'],f['k'],tuple(f['spans']),None,d+1))
    blocks.sort(key=lambda b:b.fork)
    return Layout(pos,tuple(blocks),nxt)
